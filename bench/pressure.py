"""A million settlements through a thousand connections, what they leave behind, and two processes instead of one."""

import os
import statistics
from collections import Counter
from typing import Any

from bench import events, load, servers
from bench.fill import fill_open
from bench.machine import peak_bytes, pin, pin_family, resident_bytes
from bench.pairs import CONNECTIONS
from bench.results import Results, spread
from bench.verify import Void, verify
from bench.world import World, on_postgres

SETTLED = int(os.environ.get("BENCH_SETTLED", "1000000"))
MANY = 1024
_AT_ONCE = 100_000
"""Made anew each time: a signature is good for 300 seconds."""
_MEBIBYTE = 1024 * 1024
_TABLES = ("generations", "polls", "transitions", "deliveries")
_COUNTS = """
SELECT (SELECT count(*) FROM generations WHERE settled_at IS NOT NULL) AS settled,
    (SELECT count(*) FROM deliveries WHERE outcome = 'applied' AND attempts = 1) AS delivered,
    (SELECT count(*) FROM transitions WHERE number = 2) AS moved, (SELECT count(*) FROM polls) AS open
"""
_SIZES = """
SELECT relname, pg_table_size(oid) AS table, pg_indexes_size(oid) AS indexes FROM pg_class
WHERE relkind = 'r' AND relname = ANY($1::text[]) ORDER BY relname
"""
_HOT = "SELECT n_tup_hot_upd::float8 / n_tup_upd FROM pg_stat_user_tables WHERE relname = 'generations'"
ROUNDS = 5
SECONDS = 1.5
_FASTEST = 20_000


def run(world: World, results: Results) -> None:
    """On PostgreSQL, with its defaults."""
    _settle_all(world, results)
    _two_processes(world, results)


def _settle_all(world: World, results: Results) -> None:
    url = world.fresh("postgresql")
    fill_open(url, first=1, last=SETTLED)
    statuses, slowest, rates = Counter[int](), list[float](), list[float]()
    with servers.receiver(url, core=world.server_core) as ours:
        idle = resident_bytes(ours.pid) / _MEBIBYTE
        for begin in range(1, SETTLED + 1, _AT_ONCE):
            ids = [f"task_{number}" for number in range(begin, min(begin + _AT_ONCE, SETTLED + 1))]
            batch = events.about(f"m{begin}", ids, failed_each=10, is_known=True)
            came = load.run([ours.port], batch.requests, connections=MANY, seconds=300)
            statuses += came.statuses
            slowest.append(came.percentile(99))
            rates.append(came.per_second)
        peak = peak_bytes(ours.pid) / _MEBIBYTE
    counts = on_postgres(url, lambda connection: connection.fetchrow(_COUNTS, timeout=600))
    expected = statuses[200]
    if tuple(counts) != (expected, expected, expected, SETTLED - expected):
        raise Void(f"{expected:,} were answered 200, and there are {dict(counts)}")
    results.add(
        f"{SETTLED:,} known generations settle over {MANY:,} connections",
        target="only 200 and 503, p99 ≤ 1 s; RSS idle ≤ 110 MiB, ≤ 180 MiB at most",
        measured=f"{dict(statuses)}, p99 {max(slowest):.0f} ms; {idle:.0f} MiB, {peak:.0f} MiB",
        is_reached=set(statuses) <= {200, 503} and max(slowest) <= 1000 and idle <= 110 and peak <= 180,
    )
    results.note(f"{spread(rates, ',.0f')}/s over {MANY:,} connections")
    _report_sizes(url, results)
    world.drop(url)


def _report_sizes(url: str, results: Results) -> None:
    """Before and after everything is written anew without room: the difference is that room, and bloat."""
    share = float(on_postgres(url, lambda connection: connection.fetchval(_HOT)))
    before = _sizes(url)
    on_postgres(url, _rewrite)
    after = _sizes(url)
    used = {name: (table + indexes) / SETTLED for name, (table, indexes) in before.items()}
    of_open = used.pop("polls")
    total = sum(used.values())
    results.add(
        "bytes for each settled generation, body and all indexes included",
        target="≤ 1,700",
        measured=f"{total:,.0f} ({', '.join(f'{name} {each:,.0f}' for name, each in used.items())})",
        is_reached=total <= 1700,
    )
    results.note(f"polls took {of_open:,.0f} bytes for each generation that was open at once; settling deletes the row")
    bloat = "; ".join(
        f"{name} {_growth(before[name][0], after[name][0])}, its indexes {_growth(before[name][1], after[name][1])}"
        for name in before
    )
    results.note(f"after {SETTLED:,} settlements with default autovacuum, {share:.0%} of them HOT: {bloat}")


def _growth(before: int, after: int) -> str:
    return f"{before / _MEBIBYTE:,.0f} MiB where {after / _MEBIBYTE:,.0f} would do"


def _sizes(url: str) -> dict[str, tuple[int, int]]:
    rows = on_postgres(url, lambda connection: connection.fetch(_SIZES, list(_TABLES)))
    return {row["relname"]: (row["table"], row["indexes"]) for row in rows}


async def _rewrite(connection: Any) -> None:  # noqa: ANN401 - asyncpg tells no types
    await connection.execute("ALTER TABLE generations SET (fillfactor = 100)")
    for table in _TABLES:
        await connection.execute(f"VACUUM FULL {table}", timeout=600)


def _two_processes(world: World, results: Results) -> None:
    """In turns with one; nothing is pinned within the two cores."""
    url, rates = world.fresh("postgresql"), {1: list[float](), 2: list[float]()}
    both = (world.server_core, world.other_core)
    with servers.receivers(url, 2, core=world.server_core) as ours:
        for server in ours:
            pin(server.pid, *both)
        pin_family(world.cluster.pid, *both)
        os.sched_setaffinity(0, both)
        for number in range(ROUNDS + 1):
            for count, measured in rates.items():
                batch = events.make(f"t{number}x{count}", int(SECONDS * _FASTEST))
                ports = [server.port for server in ours[:count]]
                came = load.run(ports, batch.requests, connections=CONNECTIONS, seconds=SECONDS)
                verify(url, batch, came)
                measured.append(came.per_second)
    pin_family(world.cluster.pid, world.other_core)
    os.sched_setaffinity(0, {world.other_core})
    world.drop(url)
    ratios = [two / one for two, one in zip(rates[2][1:], rates[1][1:], strict=True)]
    results.add(
        f"two processes on two cores shared with PostgreSQL, new, {CONNECTIONS} connections, against one",
        target="≥ 1.1x",
        measured=f"{spread(ratios, '.2f')}x ({spread(rates[2][1:], ',.0f')}/s)",
        is_reached=statistics.median(ratios) >= 1.1,
    )
