"""Several processes on one PostgreSQL: how fast they are, what a delivery costs each part, what a core would buy."""

import os
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench import events, load, servers
from bench.machine import cpu_seconds, family_cpu_seconds, pin, pin_family
from bench.results import Results, spread
from bench.servers import TOKEN, Server, ask
from bench.verify import verify
from bench.world import World

COUNTS = (1, 2, 4)
ROUNDS = 3
SECONDS = 1.5
CONNECTIONS = 256
"""Spread over the processes: 64 for each of four."""
FEW = 64
SLOWER = 0.95
"""What is above this share of one process's speed is not slower: one process's own rounds differ by more."""
_FASTEST = 20_000
_PARTS = ("servers", "PostgreSQL", "generator")
_FULL = 0.85
"""Of a core: who uses more of it than that counts as full."""
_BATCHES = re.compile(rb"^receiver_batch_size_(sum|count) ([0-9.e+]+)$", re.MULTILINE)


@dataclass(slots=True)
class Shares:
    """What came of all rounds with so many processes in one arrangement."""

    rates: list[float] = field(default_factory=list)
    used: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in _PARTS})
    """Processor microseconds of each part for each delivery."""
    batches: list[float] = field(default_factory=list)
    """Deliveries for each commit."""

    def cost(self, part: str) -> float:
        """Microseconds: the median."""
        return statistics.median(self.used[part])

    def busy(self, *parts: str) -> float:
        """The share of one core that these parts have used together."""
        return sum(self.cost(part) for part in parts) * statistics.median(self.rates) / 1e6


def run(world: World, results: Results) -> None:
    """One, two and four processes in turns: all on two cores, then the servers alone on one, or PostgreSQL alone."""
    url = world.fresh("postgresql")
    with servers.receivers(url, max(COUNTS), core=world.server_core) as ours:
        _round(world, url, ours, "warm", Shares(), connections=len(ours))
        with _shared(world, ours):
            shared = _measured(world, url, ours, "o", COUNTS)
        alone = _measured(world, url, ours, "s", COUNTS)
        few = _measured(world, url, ours, "f", (1, 4), connections=FEW)
        with _generator_on(world.server_core):
            apart = _measured(world, url, ours, "p", (1, 4))
        together = _together(world, url, ours)
    _report(shared, results)
    _report_parts(f"all share both cores, {CONNECTIONS} connections", shared, results)
    results.note(f"with all servers on one core, of one's speed in the same round, {_compared(alone)}")
    _report_parts(
        f"servers on one core, PostgreSQL and generator on the other, {CONNECTIONS} connections", alone, results
    )
    _report_parts(f"the same with {FEW} connections", few, results)
    _report_parts("PostgreSQL on one core, servers and generator on the other", apart, results)
    _report_parts("servers and PostgreSQL on one core, the generator on the other", together, results)
    _report_cores(alone, results)
    world.drop(url)


@contextmanager
def _generator_on(*cores: int) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _shared(world: World, ours: Sequence[Server]) -> Iterator[None]:
    """Nothing is pinned within the two cores."""
    both = (world.server_core, world.other_core)
    for server in ours:
        pin(server.pid, *both)
    pin_family(world.cluster.pid, *both)
    try:
        with _generator_on(*both):
            yield
    finally:
        for server in ours:
            pin(server.pid, world.server_core)
        pin_family(world.cluster.pid, world.other_core)


def _together(world: World, url: str, ours: Sequence[Server]) -> dict[int, Shares]:
    pin_family(world.cluster.pid, world.server_core)
    try:
        return _measured(world, url, ours, "t", (1,))
    finally:
        pin_family(world.cluster.pid, world.other_core)


def _measured(
    world: World, url: str, ours: Sequence[Server], name: str, counts: Sequence[int], *, connections: int = CONNECTIONS
) -> dict[int, Shares]:
    shares_by_count = {count: Shares() for count in counts}
    for number in range(ROUNDS):
        for count in counts:
            _round(world, url, ours[:count], f"{name}{number}x{count}", shares_by_count[count], connections=connections)
    return shares_by_count


def _round(world: World, url: str, ours: Sequence[Server], name: str, shares: Shares, *, connections: int) -> None:
    ports, batch = [it.port for it in ours], events.make(name, int(SECONDS * _FASTEST))
    batches, before = _batches(ours), _used(world, ours)
    came = load.run(ports, batch.requests, connections=connections, seconds=SECONDS)
    after = _used(world, ours)
    verify(url, batch, came)
    shares.rates.append(came.per_second)
    shares.batches.append(len(came.latencies) / max(_batches(ours) - batches, 1))
    for part in _PARTS:
        shares.used[part].append((after[part] - before[part]) / len(came.latencies) * 1e6)


def _used(world: World, ours: Sequence[Server]) -> dict[str, float]:
    return {
        "servers": sum(cpu_seconds(it.pid) for it in ours),
        "PostgreSQL": family_cpu_seconds(world.cluster.pid),
        "generator": time.process_time(),
    }


def _batches(ours: Sequence[Server]) -> float:
    """How many commits these processes have made."""
    samples = [dict(_BATCHES.findall(ask(it.port, "/metrics", token=TOKEN) or b"")) for it in ours]
    return sum(float(it.get(b"count", b"0")) for it in samples)


def _report(shares_by_count: Mapping[int, Shares], results: Results) -> None:
    rates = ", ".join(f"{count}: {spread(it.rates, ',.0f')}/s" for count, it in shares_by_count.items())
    results.add(
        f"two and four processes on one PostgreSQL, {CONNECTIONS} connections, sharing two cores with it",
        target=f"nothing lost or doubled, never slower than one (≥ {SLOWER} of it)",
        measured=f"{rates}; of one's speed in the same round, {_compared(shares_by_count)}",
        is_reached=min(statistics.median(it) for it in _ratios(shares_by_count).values()) >= SLOWER,
    )


def _ratios(shares_by_count: Mapping[int, Shares]) -> dict[int, list[float]]:
    return {
        count: [
            several / one for several, one in zip(shares_by_count[count].rates, shares_by_count[1].rates, strict=True)
        ]
        for count in COUNTS[1:]
    }


def _compared(shares_by_count: Mapping[int, Shares]) -> str:
    return ", ".join(f"{count}: {spread(of_one, '.2f')}" for count, of_one in _ratios(shares_by_count).items())


def _report_parts(arrangement: str, shares_by_count: Mapping[int, Shares], results: Results) -> None:
    for count, it in shares_by_count.items():
        parts = ", ".join(f"{part} {it.cost(part):.0f} µs ({it.busy(part):.0%} of a core)" for part in _PARTS)
        full = max(_PARTS, key=it.busy)
        what = f"{full} saturated" if it.busy(full) >= _FULL else f"nothing saturated; the busiest is {full}"
        results.note(
            f"{arrangement}; {count} process{'es' if count > 1 else ''}: {spread(it.rates, ',.0f')}/s, "
            f"{statistics.median(it.batches):.0f} for each commit; for each delivery {parts}: {what}"
        )


def _report_cores(shares_by_count: Mapping[int, Shares], results: Results) -> None:
    server, database = (1e6 / shares_by_count[1].cost(part) for part in ("servers", "PostgreSQL"))
    several = {count: 1e6 / shares_by_count[count].cost("PostgreSQL") for count in COUNTS[1:]}
    costs = ", ".join(f"{rate:,.0f}/s with {count}" for count, rate in several.items())
    results.note(
        f"so a core of its own lets one process take {server:,.0f}/s, and a core of its own lets PostgreSQL take "
        f"{database:,.0f}/s from one process, {costs}: each further core buys {server:,.0f}/s where a process gets "
        f"it, up to {database / server:.1f} processes for each core that PostgreSQL gets"
    )
