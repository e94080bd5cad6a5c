"""One measurement between two of the ceiling: the ratio is what counts, absolute figures drift."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from bench import events, load
from bench.load import Load
from bench.machine import cpu_seconds
from bench.servers import Server

CEILING_SECONDS = 1.0
CEILING_CONNECTIONS = 16


@dataclass(slots=True)
class Pairs:
    """What came of all pairs so far."""

    ratios: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    ceilings: list[float] = field(default_factory=list)
    p50s: list[float] = field(default_factory=list)
    p99s: list[float] = field(default_factory=list)
    processor_ratios: list[float] = field(default_factory=list)
    """Processor time a request of the ceiling takes, by what one of ours takes: what an idle machine would show."""
    busy: list[float] = field(default_factory=list)
    """Share of its core that the server used."""

    @property
    def ratio(self) -> float:
        """The median."""
        return statistics.median(self.ratios)


def measure(pairs: Pairs, ceiling: Server, server: Server, act: Callable[[], Load]) -> Load:
    """Ceiling, `act`, ceiling."""
    before, first = ceiling_load(ceiling)
    used = cpu_seconds(server.pid)
    measured = act()
    used = cpu_seconds(server.pid) - used
    after, second = ceiling_load(ceiling)
    reference = (before.per_second + after.per_second) / 2
    pairs.ceilings.append(reference)
    pairs.rates.append(measured.per_second)
    pairs.ratios.append(measured.per_second / reference)
    pairs.p50s.append(measured.percentile(50))
    pairs.p99s.append(measured.percentile(99))
    pairs.processor_ratios.append((first + second) / 2 / (used / max(len(measured.latencies), 1)))
    pairs.busy.append(used / measured.seconds)
    return measured


def ceiling_load(ceiling: Server) -> tuple[Load, float]:
    """A run of the ceiling, and the seconds of its processor time that one request takes."""
    requests = list(events.make("ceiling", 500).requests) * 120
    used = cpu_seconds(ceiling.pid)
    came = load.run([ceiling.port], requests, connections=CEILING_CONNECTIONS, seconds=CEILING_SECONDS)
    return came, (cpu_seconds(ceiling.pid) - used) / max(len(came.latencies), 1)
