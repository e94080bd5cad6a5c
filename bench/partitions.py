"""What recording costs on partitioned tables, beside the same on whole ones: two databases, two processes, in turns."""

import asyncio
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench import events, load, servers
from bench.intake import deliver
from bench.machine import cpu_seconds, family_cpu_seconds
from bench.results import Results, spread
from bench.servers import Server
from bench.verify import verify
from bench.world import World, on_postgres
from migrations.partitioning.commands import ahead, apply

ROWS = 50_000
MONTHS = 24
ROUNDS = 5
SECONDS = 2.0
_FASTEST = 12_000
_BYTES = """
SELECT sum(pg_total_relation_size(oid))::float8 / (SELECT count(*) FROM deliveries) FROM pg_class
WHERE relkind = 'r' AND relname ~ '^(generations|transitions|delivery_keys|deliveries)'
"""
_KEYS = "SELECT pg_total_relation_size('delivery_keys')::float8 / count(*) FROM delivery_keys"


@dataclass(slots=True)
class _Found:
    rates: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)
    database: list[float] = field(default_factory=list)
    """Processor microseconds for each delivery."""
    wal: list[float] = field(default_factory=list)
    """Bytes of the write-ahead log for each delivery."""


def run(world: World, results: Results) -> None:
    """Both have rows before, and ids that grow, so their indexes fill alike; two years of months are made ahead."""
    urls = {"whole": world.fresh("postgresql"), "partitioned": world.fresh("postgresql")}
    found = {name: _Found() for name in urls}
    with (
        servers.receiver(urls["whole"], core=world.server_core) as whole,
        servers.receiver(urls["partitioned"], core=world.server_core) as partitioned,
    ):
        processes = {"whole": whole, "partitioned": partitioned}
        for name, server in processes.items():
            deliver(urls[name], server, f"a{name}", connections=1, seconds=0.1)
            load.run([server.port], events.make(f"b{name}", ROWS).requests, connections=64, seconds=300)
        asyncio.run(_partition(urls["partitioned"]))  # while it is being served: it notices by itself
        for number in range(ROUNDS):
            for name, server in processes.items():
                _round(world, urls[name], server, f"c{number}{name}", found[name])
    _tell(found, results)
    for name, url in urls.items():
        used = float(on_postgres(url, lambda made: made.fetchval(_BYTES)))
        results.note(f"{name}: {used:,.0f} bytes for each settled generation, delivery included")
    keys = float(on_postgres(urls["partitioned"], lambda made: made.fetchval(_KEYS)))
    results.note(f"of which delivery_keys: {keys:,.0f} bytes for each event")
    for url in urls.values():
        world.drop(url)


async def _partition(url: str) -> None:
    await apply(url)
    await ahead(url, MONTHS)


def _round(world: World, url: str, server: Server, name: str, found: _Found) -> None:
    made, log = events.make(name, int(SECONDS * _FASTEST)), _written(url)
    before = cpu_seconds(server.pid), family_cpu_seconds(world.cluster.pid)
    came = load.run([server.port], made.requests, connections=64, seconds=SECONDS)
    used = cpu_seconds(server.pid) - before[0], family_cpu_seconds(world.cluster.pid) - before[1]
    log, count = _written(url) - log, len(came.latencies)
    verify(url, made, came)
    found.rates.append(came.per_second)
    found.server.append(used[0] / count * 1e6)
    found.database.append(used[1] / count * 1e6)
    found.wal.append(log / count)


def _written(url: str) -> float:
    """Bytes of the write-ahead log so far."""
    position = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8"
    return float(on_postgres(url, lambda made: made.fetchval(position)))


def _tell(found: Mapping[str, _Found], results: Results) -> None:
    whole, partitioned = found["whole"], found["partitioned"]
    ratios = [ours / theirs for ours, theirs in zip(partitioned.rates, whole.rates, strict=True)]
    results.add(
        f"delivery committed on tables partitioned by month, {MONTHS} months made, against whole ones",
        target="≥ 0.8 of it",
        measured=spread(ratios, ".2f"),
        is_reached=statistics.median(ratios) >= 0.8,
    )
    for name, it in found.items():
        results.note(
            f"{name}: {spread(it.rates, ',.0f')}/s; for each delivery {spread(it.server, '.0f')} µs of the server, "
            f"{spread(it.database, '.0f')} µs of PostgreSQL, "
            f"{spread(it.wal, ',.0f')} bytes of write-ahead log"
        )
