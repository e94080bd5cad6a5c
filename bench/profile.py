"""Where the time of a callback for a known generation goes: in the process, as py-spy sees it, and in PostgreSQL."""

import json
import statistics
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from app.core.drivers import DIRECT_SETTINGS
from app.fastpath.settlement import SETTLE, arguments, final_callbacks
from bench import events, load, release_0_1, servers
from bench.fill import fill_open
from bench.intake import deliver
from bench.machine import pin
from bench.pairs import CONNECTIONS
from bench.release_0_1 import BATCH
from bench.results import Results
from bench.verify import verify
from bench.world import World, on_postgres

SECONDS = 12
_RATE = 300
_FASTEST = 14_000
_FEWEST = 500
_PY_SPY = Path(__file__).resolve().parent.parent / ".venv-bench" / "bin" / "py-spy"

PARTS = (
    ("answering", ("set_result (app/fastpath/application.py", "respond (app/fastpath/protocol.py")),
    ("logging and counting", ("note (app/ledger/recorder.py", "count_recorded (app/intake/webhook.py")),
    ("verifying", ("verify_now (app/endpoint/verification.py",)),
    ("reading the body", ("parse_delivery (app/intake/webhook.py",)),
    ("deciding", ("plan (app/ledger/decide.py",)),
    ("writing rows", ("arguments (app/fastpath/settlement.py", "_arguments (app/ledger/postgres.py")),
    ("SQLite's statements", ("_record (app/ledger/sqlite.py",)),
    ("SQLite's commits", ("_act (app/core/sqlite.py",)),
    ("talking to the database", ("(app/fastpath/settlement.py", "(app/ledger/postgres.py", "(asyncpg/")),
    ("queueing", ("(app/ledger/write_queue.py", "(app/intake/webhook.py", "(app/fastpath/application.py")),
    ("HTTP", ("(app/fastpath/protocol.py", "(app/fastpath/connections.py", "(uvicorn/protocols/")),
)
"""A sample belongs to the first part one of whose functions it has on its stack."""
_REST = "the event loop and the rest"
STEPS = {
    "open": "looking what is open",
    "whole": "looking what is open",
    "changed": "generations",
    "closed": "polls",
    "delivered": "deliveries",
    "ahead": "transitions",
    "moved": "transitions",
    "counted": "sums of usage",
}
"""The parts of `SETTLE`, and what each does."""
_STARTING = "starting and ending the statement"
_WAITING = ("PyThread_acquire_lock_timed", "_queue_SimpleQueue_get_impl", "fdatasync", "fsync", "take_gil")
"""Of threads that have nothing to do but wait, as far as py-spy does not see it by itself."""
_KERNEL = ("send", "recv", "read", "write", "epoll_", "pwrite", "pread", "futex", "poll")
"""Beginnings of the names under which libc calls the kernel, after underscores and `libc_`."""


def run(world: World, results: Results) -> None:
    """On both databases. py-spy must be allowed to look: root, or a `kernel.yama.ptrace_scope` of 0."""
    for kind in ("postgresql", "sqlite"):
        url = world.fresh(kind)
        with servers.receiver(url, core=world.server_core) as ours:
            deliver(url, ours, "warm", connections=CONNECTIONS, seconds=1)
            fill_open(url, first=1, last=SECONDS * _FASTEST)
            ids = [f"task_{number}" for number in range(1, SECONDS * _FASTEST + 1)]
            batch = events.about("looked", ids, failed_each=10, is_known=True)
            with tempfile.NamedTemporaryFile(suffix=".txt") as profile:
                looking = _look(ours.pid, profile.name, core=world.server_core)
                came = load.run([ours.port], batch.requests, connections=CONNECTIONS, seconds=SECONDS)
                output = looking.communicate()[0]
                samples = list(_samples(Path(profile.name).read_text()))
            verify(url, batch, came)
        if kind == "postgresql":
            last = SECONDS * _FASTEST
            results.note(f"PostgreSQL, {BATCH} for each commit: {on_postgres(url, partial(_steps, last=last))}")
        world.drop(url)
        results.note(f"{kind}: {_shares(samples)}" if looking.returncode == 0 else f"py-spy: {output.strip()[-200:]}")


def _look(pid: int, path: str, *, core: int) -> "subprocess.Popen[str]":
    """On the server's own core: on the other it would get its turn when PostgreSQL rests, and see what happens then."""
    options = ["--native", "--rate", str(_RATE), "--duration", str(SECONDS - 2), "--format", "raw", "--output", path]
    looking = subprocess.Popen(
        [str(_PY_SPY), "record", *options, "--pid", str(pid)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    pin(looking.pid, core)
    return looking


def _samples(output: str) -> Iterable[tuple[list[str], int]]:
    """Stacks, outermost function first, and how often each was seen while it had the processor."""
    for line in output.splitlines():
        stack, _, times = line.rpartition(" ")
        frames = stack.split(";")
        if not any(mark in frame for frame in frames for mark in _WAITING):
            yield frames, int(times)


def _shares(samples: Iterable[tuple[list[str], int]]) -> str:
    times_by_part, kernel = Counter[str](), 0
    for stack, times in samples:
        times_by_part[_part(stack)] += times
        kernel += times * _is_kernel(stack[-1])
    total = times_by_part.total()
    if total < _FEWEST:
        return f"seen only {total} times"
    parts = ", ".join(f"{part} {times / total:.0%}" for part, times in times_by_part.most_common())
    return f"{parts}; within these the kernel {kernel / total:.0%} ({total:,} samples)"


def _part(stack: list[str]) -> str:
    for part, marks in PARTS:
        if any(mark in frame for frame in stack for mark in marks):
            return part
    return _REST


def _is_kernel(frame: str) -> bool:
    return frame.lstrip("_").removeprefix("libc_").startswith(_KERNEL)


async def _steps(connection: Any, *, last: int) -> str:  # noqa: ANN401 - asyncpg tells no types
    """The shares of `SETTLE` in PostgreSQL's time for it, as its executor tells them; without the flush of the log."""
    for name, value in {**DIRECT_SETTINGS, "jit": "off"}.items():
        await connection.execute(f"SET {name} = {value}")
    callbacks = final_callbacks(release_0_1.reports(last - release_0_1.SETTLED + 1))
    milliseconds: dict[str, list[float]] = defaultdict(list)
    for begin in range(0, release_0_1.SETTLED, BATCH):
        batch = callbacks[begin : begin + BATCH]
        explained = f"EXPLAIN (ANALYZE, COSTS off, FORMAT json) {SETTLE}"
        [plan] = json.loads(await connection.fetchval(explained, *arguments(batch), len(batch)))
        steps = dict.fromkeys((*STEPS.values(), _STARTING), 0.0)
        for node in plan["Plan"]["Plans"]:
            name = node.get("Subplan Name", "").removeprefix("CTE ")
            if name in STEPS:
                steps[STEPS[name]] += _own_milliseconds(node)
        steps[_STARTING] = plan["Execution Time"] - sum(steps.values())
        for step, time in steps.items():
            milliseconds[step].append(time)
    medians = {step: statistics.median(times) for step, times in milliseconds.items()}
    total = sum(medians.values())
    ordered = sorted(medians.items(), key=lambda it: -it[1])
    return ", ".join(f"{step} {median / total:.0%}" for step, median in ordered)


def _own_milliseconds(node: dict[str, Any]) -> float:
    """The time of a node and those below it, without what it reads of other parts of the statement."""
    if node["Node Type"] == "CTE Scan":
        return 0.0
    below = [it for it in node.get("Plans", ()) if it.get("Parent Relationship") != "InitPlan"]
    inclusive = [it["Actual Total Time"] * it["Actual Loops"] for it in (node, *below)]
    return float(inclusive[0] - sum(inclusive[1:]) + sum(_own_milliseconds(it) for it in below))
