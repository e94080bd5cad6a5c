"""PostgreSQL's settings, one changed at a time, in turns with the defaults: speed, processor time, log bytes."""

import asyncio
import statistics
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from app.core.database import Database
from app.ledger.recorder import Changes, Recorder
from bench import events, load, servers
from bench.intake import deliver
from bench.machine import family_cpu_seconds
from bench.results import Results, spread
from bench.servers import Server
from bench.verify import verify
from bench.world import World, on_postgres
from tests.support.reports import submit, webhook

ROUNDS = 3
SECONDS = 1.5
THERE_ALREADY = 50_000
CHANGES = {
    "synchronous_commit = off (breaks durable before 2xx)": {"synchronous_commit": "off"},
    "wal_compression = on": {"wal_compression": "on"},
    "full_page_writes = off (not for production)": {"full_page_writes": "off"},
    "commit_delay = 1000, commit_siblings = 1": {"commit_delay": "1000", "commit_siblings": "1"},
    "max_wal_size = 8GB": {"max_wal_size": "8GB"},
    "jit = off": {"jit": "off"},
}
"""All of them take effect by a reload."""
_HOT = """
SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'generations'
"""
_SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'rivya-receiver'"
)


@dataclass(slots=True)
class _Measured:
    rates: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)


def run(world: World, results: Results) -> None:
    """Each ratio is of two runs that follow each other, the first of them with the defaults."""
    url = world.fresh("postgresql")
    with servers.receiver(url, core=world.server_core) as ours:
        deliver(url, ours, "first", connections=1, seconds=0.1)
        load.run([ours.port], events.make("there", THERE_ALREADY).requests, connections=64, seconds=300)
        for number, (name, changes) in enumerate(CHANGES.items()):
            _compare(world, url, ours, f"s{number}", name, changes, results)
        _sessions(url, ours, results)
    world.drop(url)
    asyncio.run(_updates(world, results))


def _compare(
    world: World, url: str, ours: Server, run_name: str, name: str, changes: dict[str, str], results: Results
) -> None:
    plain, changed = _Measured(), _Measured()
    for number in range(ROUNDS):
        for measured, settings in ((plain, {}), (changed, changes)):
            _set(url, settings)
            _round(world, url, ours, f"{run_name}{number}{len(settings)}", measured)
    _set(url, {})
    rates = [after / before for before, after in zip(plain.rates, changed.rates, strict=True)]
    used = [after / before for before, after in zip(plain.used, changed.used, strict=True)]
    written = [after / before for before, after in zip(plain.written, changed.written, strict=True)]
    results.note(
        f"{name}: of the defaults' speed {spread(rates, '.2f')}, PostgreSQL's processor time {spread(used, '.2f')}, "
        f"log bytes {spread(written, '.2f')} (defaults: {statistics.median(plain.written):,.0f} for each delivery)"
    )


def _round(world: World, url: str, ours: Server, name: str, measured: _Measured) -> None:
    batch = events.make(name, int(SECONDS * 12_000))
    on_postgres(url, lambda connection: connection.execute("CHECKPOINT"))  # or one round pays for another's pages
    used, written = family_cpu_seconds(world.cluster.pid), _written(url)
    came = load.run([ours.port], batch.requests, connections=64, seconds=SECONDS)
    count = len(came.latencies)
    measured.used.append((family_cpu_seconds(world.cluster.pid) - used) / count)
    measured.written.append((_written(url) - written) / count)
    measured.rates.append(came.per_second)
    verify(url, batch, came)


def _set(url: str, settings: dict[str, str]) -> None:
    async def act(connection: Any) -> None:  # noqa: ANN401 - asyncpg tells no types
        await connection.execute("ALTER SYSTEM RESET ALL")
        for name, value in settings.items():
            await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        await connection.execute("SELECT pg_reload_conf()")

    on_postgres(url, act)


def _written(url: str) -> float:
    position = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8"
    return float(on_postgres(url, lambda connection: connection.fetchval(position)))


def _sessions(url: str, ours: Server, results: Results) -> None:
    """Connections that a process under load has open, however many are allowed."""
    deliver(url, ours, "sessions", connections=256, seconds=1)
    results.note(
        f"{on_postgres(url, lambda opened: opened.fetchval(_SESSIONS))} sessions after 256 connections delivered"
    )


async def _updates(world: World, results: Results) -> None:
    """Of a generation's own row: how many of its updates stay within its page and touch no index."""
    url = await asyncio.to_thread(world.fresh, "postgresql")
    database = Database(url)
    ledger = Recorder(database, first_poll=lambda _, now: now + timedelta(seconds=60), changes=Changes())
    for number in range(500):
        name = f"g{number}"
        for report in (submit(name), webhook(name, "processing"), webhook(name, "succeeded")):
            await ledger.record([report])
    await database.dispose()
    await asyncio.sleep(1.5)  # sessions tell what they did when they end, or once a second
    row = await asyncio.to_thread(on_postgres, url, lambda connection: connection.fetchrow(_HOT))
    results.note(
        f"of {row['n_tup_upd']:,} updates of generations {row['n_tup_hot_upd'] / row['n_tup_upd']:.0%} touched no index"
    )
    await asyncio.to_thread(world.drop, url)
