"""The parts of `make soak`; each has its share of the time that is left: what one overruns, those after it make up."""

import asyncio
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from app.core.migrations import migrate
from bench.machine import cores
from bench.old import fill_old
from bench.results import spread
from bench.retention import is_as_promised, prune
from tests.soak.flooding import flood
from tests.soak.fuzzing import Fuzzed, fuzz
from tests.soak.killing import Outcome, kill_under_load
from tests.soak.leader import let_a_lease_run_out
from tests.soak.suites import Suite, run
from tests.soak.table import Table
from tests.soak.world import Stage, World
from tests.support.failing_database import failing
from tests.support.fork_client import fork_server
from tests.support.run_counts import RunCounts

KILLS_PER_ROUND = 25
LEAST_KILLS_PER_SECOND = 100 / 1800
SECONDS_FOR_LEASES = 150.0
"""What a round takes in which a killed process's leases of 60 s run out by themselves."""
SETTLED_PER_SECOND = 1000
"""Old generations for each second of the share of retention: it fills the database first."""
OTHERS = 1000
LEAST_SECONDS = 20.0
"""Of retention: a process each way, and a moment for each."""
FLOOD_RATE = 10_000
CASES_AT_ONCE = 20_000

DATABASES = tuple(
    f"tests/faults/test_{name}.py" for name in ("failing_postgres", "failing_sqlite", "contended_postgres")
)
LYING = ("tests/faults/test_faulty_provider_service.py", "tests/faults/test_faulty_provider.py")
POINTS = ("tests/faults/test_killed_registration.py",)
ATTACKS = (
    *(f"tests/faults/test_{name}.py" for name in ("attacks", "hostile_connections", "connection_limits", "slow_reads")),
    *(f"tests/flow/test_{name}.py" for name in ("proofs", "rivya_transport", "gateway_relay", "fences", "hang_ups")),
    "tests/race/test_polls_in_turn.py",
)
"""The attacks that once got through."""
_NAMED = {*DATABASES, *LYING, *POINTS, *ATTACKS}
OTHER_FAULTS = tuple(sorted(str(path) for path in Path("tests/faults").glob("test_*.py") if str(path) not in _NAMED))
PROPERTIES = (
    "tests/unit/test_signature_properties.py",
    "tests/flow/test_intake_any_bytes.py",
    "tests/flow/test_fast_path_equivalence.py",
    "tests/contract/test_openapi_conformance.py",
)


def leader(world: World, _: float) -> None:
    """The lease of a killed leader runs out by itself."""
    url = world.postgres.migrated()

    async def act() -> None:
        async with fork_server() as parent:
            lapse = await let_a_lease_run_out(parent, url, world.fresh_directory())
        text = f"the lease ended {lapse.ended:.1f} s after the kill, another led after {lapse.taken:.1f} s"
        world.table.add("leader's lease runs out", lapse.counts, text, is_clean=lapse.is_as_promised)

    asyncio.run(act())
    world.postgres.drop(url)


def kills(world: World, seconds: float) -> None:
    """Rounds on both databases; every fourth, where there is time, leases run out by themselves."""
    until, killed, round_ = time.monotonic() + seconds, 0, 0
    while round_ == 0 or time.monotonic() < until:
        round_ += 1
        for kind, source, size in (("postgresql", world.postgres, 2), ("sqlite", world.sqlite, 1)):
            has_time = round_ % 4 == 0 and until - time.monotonic() > SECONDS_FOR_LEASES
            url = source.migrated()
            half = until if kind == "sqlite" else time.monotonic() + (until - time.monotonic()) / 2
            outcome = asyncio.run(_killed(world, url, size=size, seed=round_, has_time=has_time, until=half))
            source.drop(url)
            killed += outcome.kills
            _add_kills(world.table, f"killed, {kind}", outcome)
    if killed < (least := int(seconds * LEAST_KILLS_PER_SECOND)):
        world.table.add_not_run("kills", f"{killed} of {least}")


async def _killed(world: World, url: str, *, size: int, seed: int, has_time: bool, until: float) -> Outcome:
    async with fork_server() as parent:
        return await kill_under_load(
            parent,
            url,
            world.fresh_directory(),
            size=size,
            kills=KILLS_PER_ROUND,
            seed=seed,
            has_time=has_time,
            until=until,
        )


def _add_kills(table: Table, name: str, outcome: Outcome) -> None:
    account, verdict = outcome.account, outcome.verdict
    text = (
        f"creates sent {len(account.keys)} answered {len(account.created)} paid {verdict.charged}, reads"
        f" {account.reads}, polls {outcome.polls}"
    )
    table.add(name, outcome.counts, text)
    for what in (*verdict.missing, *verdict.doubled, *verdict.wrong)[:20]:
        table.note(f"    {what}")


def suite(name: str, *paths: str, processes: int = 2, **environment: str) -> Stage:
    """Tests of the quick form, again and again with more examples."""

    def act(world: World, seconds: float) -> None:
        examples = str(int(max(world.minutes, 3) * 60))
        long = {"HYPOTHESIS_PROFILE": "soak", "SOAK_EXAMPLES": examples, **environment}
        ended = run(Suite(paths, long, processes), world.directory / f"suite-{name}", seconds=seconds)
        if not ended.is_complete:
            world.table.add_not_run(name, "pytest did not come to its end, or tried nothing", ended.counts)
        else:
            text = f"{ended.rounds} {'rounds' if ended.rounds > 1 else 'round'} of pytest"
            world.table.add(name, ended.counts, text, is_clean=ended.is_clean)

    return act


def pruning(world: World, seconds: float) -> None:
    """A big old record is pruned while deliveries go on."""
    seconds = max(seconds, LEAST_SECONDS)
    until, url = time.perf_counter() + seconds, world.postgres.migrated()
    settled = min(int(seconds * SETTLED_PER_SECOND), 1_000_000)
    fill_old(url, settled=settled, others=OTHERS)
    until = max(until, time.perf_counter() + LEAST_SECONDS)  # a slow machine may have filled all the while
    outcome = prune(url, core=cores()[0], until=until, window_seconds=max(min(seconds / 12, 15.0), 3.0))
    world.postgres.drop(url)
    left = outcome.left
    is_right = left is not None and is_as_promised(left, settled=settled, others=OTHERS)
    ratio = f"p99 {spread(outcome.ratios, '.2f')} times its normal" if outcome.ratios else "nothing was pruned"
    text = f"{outcome.gone(settled):,} of {settled:,} old generations pruned, {ratio}"
    counts = RunCounts(sent=outcome.sent, answered=outcome.accepted, recorded=outcome.accepted)
    is_fast = bool(outcome.ratios) and outcome.ratio <= 2
    world.table.add("pruned under load", counts, text, is_clean=is_right and is_fast)


def forged_flood(world: World, seconds: float) -> None:
    """Forged deliveries as fast as they go, real ones beside them."""

    async def act() -> None:
        directory = world.fresh_directory()
        url = f"sqlite+aiosqlite:///{directory / 'flood.db'}"
        await migrate(url)
        async with failing(url, directory) as service:
            await service.recovered()
            outcome = await flood(service, seconds=min(max(seconds, 3.0), 30.0), rate=FLOOD_RATE)
            counts = await service.recorded_counts()
        text = (
            f"forged {outcome.forged:,} ({outcome.rate:,.0f}/s); real p50 {outcome.percentile(0.5):.0f} ms"
            f" p99 {outcome.percentile(0.99):.0f} ms"
        )
        world.table.add("forged flood", counts, text, is_clean=outcome.refused == 0)

    asyncio.run(act())


def fuzzing(world: World, seconds: float) -> None:
    """Mutated deliveries at verifying and reading, on all cores."""
    until, seed = time.monotonic() + seconds, int(time.time())
    cores_ = len(os.sched_getaffinity(0))
    outcome: list[Fuzzed] = []
    with ProcessPoolExecutor(cores_) as pool:
        while not outcome or time.monotonic() < until:
            chunks = [pool.submit(fuzz, CASES_AT_ONCE, seed=seed + len(outcome) + n) for n in range(2 * cores_)]
            outcome += [chunk.result() for chunk in chunks]
    cases, accepted, wrongly = (sum(getattr(it, name) for it in outcome) for name in ("cases", "accepted", "wrongly"))
    slowest = max(it.slowest for it in outcome)
    text = f"{cases:,} mutated deliveries, {accepted:,} with a valid MAC; slowest took {slowest:.0%} of its time"
    world.table.add("fuzzed intake", RunCounts(wrong=wrongly), text, is_clean=slowest < 1)


STAGES: dict[str, tuple[float, Stage]] = {
    "leader's lease runs out": (0.03, leader),
    "failing databases": (0.14, suite("failing databases", *DATABASES)),
    "attacks": (0.08, suite("attacks", *ATTACKS, ATTACKS="long")),
    "other faults": (0.10, suite("other faults", *OTHER_FAULTS, *PROPERTIES)),
    "lying Rivya": (0.11, suite("lying Rivya", *LYING)),
    "killed registration": (0.12, suite("killed registration", *POINTS, FAULT_POINTS_ALL="1")),
    "feed in order": (0.05, suite("feed in order", "tests/race/test_feed_order.py", processes=1)),
    "pruned under load": (0.09, pruning),
    "forged flood": (0.02, forged_flood),
    "kills": (0.20, kills),
    "fuzzed intake": (0.06, fuzzing),
}
"""What share of the time each has; what can stop at any moment comes last."""
