"""Each measurement lies between two of the bare uvicorn: the ratio is what counts, absolute figures drift."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from bench import events, load
from bench.load import Load
from bench.machine import cpu_seconds, family_cpu_seconds
from bench.results import spread
from bench.servers import Server

CEILING_SECONDS = 0.8
CONNECTIONS = 64


@dataclass(slots=True)
class Pairs:
    """What came of all pairs so far."""

    ratios: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    p99s: list[float] = field(default_factory=list)
    processor_ratios: list[float] = field(default_factory=list)
    """Processor time a request of the ceiling takes, by what one of ours takes: what an idle machine would show."""
    server: list[float] = field(default_factory=list)
    """Processor microseconds of the server for each answer."""
    postgres: list[float] = field(default_factory=list)
    """The same of PostgreSQL, the database's sessions included."""

    @property
    def ratio(self) -> float:
        """The median."""
        return statistics.median(self.ratios)

    @property
    def p99(self) -> float:
        """The median, in milliseconds."""
        return statistics.median(self.p99s)

    def measured(self) -> str:
        """Ratio and p99, for the table."""
        return f"{spread(self.ratios)}, p99 {spread(self.p99s, '.1f')} ms"

    def costs(self) -> str:
        """Rates and processor time, for the notes."""
        server, postgres = statistics.median(self.server), statistics.median(self.postgres)
        text = f"{spread(self.rates, ',.0f')}/s; by processor time {spread(self.processor_ratios)} of the bare uvicorn"
        text += f"; server {spread(self.server, '.0f')} µs"
        if postgres:
            text += f", PostgreSQL {spread(self.postgres, '.0f')} µs: {1e6 / (server + postgres):,.0f}/s for each core"
        return text


class Ceiling:
    """The bare uvicorn; a measurement of it serves the one before it and the one after it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._requests = list(events.make("ceiling", 500).requests) * 120
        self._last: tuple[float, float] | None = None

    def measure(self, pairs: Pairs, server: Server, act: Callable[[], Load], *, postgres: int = 0) -> Load:
        """Ceiling, `act`, ceiling. `postgres`: the process whose sessions do the server's work."""
        before = self._last or self.run()
        used, of_postgres = cpu_seconds(server.pid), family_cpu_seconds(postgres) if postgres else 0.0
        came = act()
        used = cpu_seconds(server.pid) - used
        of_postgres = (family_cpu_seconds(postgres) if postgres else 0.0) - of_postgres
        self._last = after = self.run()
        answers = max(len(came.latencies), 1)
        pairs.rates.append(came.per_second)
        pairs.ratios.append(came.per_second / ((before[0] + after[0]) / 2))
        pairs.p99s.append(came.percentile(99))
        pairs.processor_ratios.append((before[1] + after[1]) / 2 / (used / answers))
        pairs.server.append(used / answers * 1e6)
        pairs.postgres.append(of_postgres / answers * 1e6)
        return came

    def run(self) -> tuple[float, float]:
        """Requests per second, and the seconds of the server's processor time that one takes."""
        used = cpu_seconds(self._server.pid)
        came = load.run([self._server.port], self._requests, connections=CONNECTIONS, seconds=CEILING_SECONDS)
        return came.per_second, (cpu_seconds(self._server.pid) - used) / max(len(came.latencies), 1)
