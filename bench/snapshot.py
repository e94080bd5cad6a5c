"""A snapshot that somebody keeps open: what claims cost then, and what they cost without one, as work goes on."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
from sqlalchemy import text

from app.core.database import Database
from app.polling.claims import LEASE, DuePolls
from bench.fill import fill
from bench.results import Results
from bench.world import World

DUE = 55_000
CLAIMED = 50_000
_AT_ONCE = 100
_LAST = 30
_SETTLE = text(
    "WITH settled AS (UPDATE generations SET status = 'succeeded', settled_at = now(), settled_by = 'poll', "
    "revision = revision + 1 WHERE id = ANY(:ids) RETURNING id) "
    "DELETE FROM polls WHERE generation_id IN (SELECT id FROM settled)"
)


def run(world: World, results: Results) -> None:
    """Three times each way; the table is filled anew for each."""
    times_by_kind: dict[bool, list[float]] = {}
    for _ in range(3):
        for is_open in (False, True):
            url = world.fresh("postgresql")
            fill(url, first=1, last=DUE, due_each=1)
            times_by_kind.setdefault(is_open, []).append(asyncio.run(_claimed(url, is_open=is_open)))
            world.drop(url)
    without, with_one = (statistics.median(times_by_kind[is_open]) for is_open in (False, True))
    results.add(
        f"claim {_AT_ONCE} after {CLAIMED:,} were claimed and settled under a snapshot that stays open",
        target="≤ 3x what it takes without one",
        measured=f"{with_one:.1f} ms against {without:.1f} ms, {with_one / without:.2f}x",
        is_reached=with_one <= 3 * without,
    )
    results.note(
        f"a snapshot that stays open costs each claim {(with_one - without) / CLAIMED * 10_000:.2f} ms more for every "
        "10,000 generations claimed since it was taken: dead index entries, which can't be removed before it ends"
    )


async def _claimed(url: str, *, is_open: bool) -> float:
    """Milliseconds that the last claims took, with the look for what is due before each."""
    database, due, times = Database(url), DuePolls(is_sqlite=False), list[float]()
    async with _snapshot(url, is_open=is_open):
        for _ in range(CLAIMED // _AT_ONCE):
            now = datetime.now(UTC)
            started = time.perf_counter()
            async with database.read() as connection:
                await due.next_due(connection, now=now)
            async with database.transaction() as connection:
                leases, _ = await due.claim(connection, now=now, until=now + LEASE, most=_AT_ONCE, after="")
            times.append((time.perf_counter() - started) * 1000)
            async with database.transaction() as connection:
                await connection.execute(_SETTLE, {"ids": [lease.generation_id for lease in leases]})
    await database.dispose()
    return statistics.median(times[-_LAST:])


@asynccontextmanager
async def _snapshot(url: str, *, is_open: bool) -> AsyncIterator[None]:
    if not is_open:
        yield
        return
    holder: Any = await asyncpg.connect(url.replace("+asyncpg", ""))
    await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM generations")
    try:
        yield
    finally:
        await holder.close()
