"""More than can be taken: a thousand connections for a minute, several processes, and how soon a process is there."""

import statistics
import threading
from collections import Counter
from collections.abc import Sequence
from functools import partial

from bench import events, load, processes, servers
from bench.intake import deliver
from bench.load import Load
from bench.machine import cpu_seconds, resident_bytes
from bench.results import Results, spread
from bench.verify import verify
from bench.world import World

CONNECTIONS = 1024
SECONDS = 60.0
_SEGMENT = 10.0
_STRETCHES = 4
_WINDOW = 0.5
_FULL = 0.9
"""Of what a process takes that had no storm: before it, PostgreSQL had less to write and nothing to vacuum."""
_FASTEST = 18_000
_MEBIBYTE = 1024 * 1024


def run(world: World, results: Results) -> None:
    """On PostgreSQL."""
    _overload(world, results)
    processes.run(world, results)
    _start(world, results)


def _overload(world: World, results: Results) -> None:
    url = world.fresh("postgresql")
    with servers.receiver(url, core=world.server_core) as ours, servers.receiver(url, core=world.server_core) as spared:
        for server, name in ((spared, "spared"), (ours, "warm")):
            deliver(url, server, name, connections=64, seconds=1)
        before = deliver(url, ours, "calm", connections=64)
        largest, is_over, used = [0], threading.Event(), cpu_seconds(ours.pid)
        watcher = threading.Thread(target=partial(_watch, ours.pid, largest, is_over))
        watcher.start()
        last = int(SECONDS / _SEGMENT) - 1
        came = [_segment(url, ours, f"storm{number}") for number in range(last)]
        storm = events.make("storm", int(_SEGMENT * _FASTEST))
        calm = [events.make(f"after{number}", int(_WINDOW * _FASTEST)) for number in range(2 * _STRETCHES)]
        came.append(load.run([ours.port], storm.requests, connections=CONNECTIONS, seconds=_SEGMENT))
        used = (cpu_seconds(ours.pid) - used) / SECONDS
        after = [  # at once, and in turns: how it recovers, and what there is to recover to
            load.run([server.port], batch.requests, connections=64, seconds=_WINDOW)
            for server, batch in zip((ours, spared) * _STRETCHES, calm, strict=True)
        ]
        is_over.set()
        watcher.join()
        for batch, answered in zip((storm, *calm), (came[-1], *after), strict=True):
            verify(url, batch, answered)
    _report_overload(came, before, after, resident=largest[0] / _MEBIBYTE, results=results)
    results.note(
        f"the server had {used:.0%} of its core during the storm: what it lacks of 100 % others took, or the disk"
    )
    world.drop(url)


def _report_overload(
    came: Sequence[Load], before: Load, after: Sequence[Load], *, resident: float, results: Results
) -> None:
    slowest = max(it.percentile(99) for it in came)
    full = statistics.median(it.per_second for it in after[1::2])
    shares = [it.per_second / full for it in after[::2]]
    recovered = next(
        ((2 * number + 1) * _WINDOW for number, share in enumerate(shares) if share >= _FULL), float("inf")
    )
    statuses = sum((it.statuses for it in came), Counter[int]())
    results.add(
        f"{CONNECTIONS:,} connections for {SECONDS:.0f} s",
        target="RSS < 250 MB, only 200 and 503, accepted p99 ≤ 1 s, full speed within 2 s after",
        measured=f"{resident:.0f} MiB, {dict(statuses)}, p99 {slowest:.0f} ms, full speed after {recovered:.1f} s",
        is_reached=resident < 238 and set(statuses) <= {200, 503} and slowest <= 1000 and recovered <= 2,
    )
    results.note(
        f"{spread([it.per_second for it in came], ',.0f')}/s during the storm; then, for {_WINDOW} s of each second, "
        f"as a share of what a process without it takes in between: {', '.join(f'{share:.2f}' for share in shares)} "
        f"(full is {_FULL}). That other process takes {full / before.per_second:.2f} of the {before.per_second:,.0f}/s "
        "before the storm: PostgreSQL writes and vacuums what that brought"
    )


def _segment(url: str, ours: servers.Server, name: str) -> Load:
    batch = events.make(name, int(_SEGMENT * _FASTEST))  # made anew each time: a signature is good for 300 seconds
    came = load.run([ours.port], batch.requests, connections=CONNECTIONS, seconds=_SEGMENT)
    verify(url, batch, came)
    return came


def _watch(pid: int, largest: list[int], is_over: threading.Event) -> None:
    while not is_over.wait(0.2):
        largest[0] = max(largest[0], resident_bytes(pid))


def _start(world: World, results: Results) -> None:
    seconds, used = [], []
    for _ in range(3):
        url = world.fresh("postgresql")
        with servers.receiver(url, core=world.server_core) as ours:
            seconds.append(ours.seconds_to_live)
            used.append(ours.processor_seconds_to_live)
        world.drop(url)
    results.add(
        "/livez after the start of the process",
        target="≤ 2 s",
        measured=f"{spread(seconds, '.2f')} s, of which {spread(used, '.2f')} s are the processor's work",
        is_reached=statistics.median(seconds) <= 2,
    )
