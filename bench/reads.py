"""Status reads and claims as the table grows to five million rows, and pages of the lists once it has them."""

import asyncio
import random
import statistics
import time
from datetime import UTC, datetime
from functools import partial

from app.core.database import Database
from app.polling.claims import LEASE, DuePolls
from bench import lists, load, servers
from bench.fill import BIG, HISTORY, SIZES, fill, fill_history
from bench.pairs import Ceiling, Pairs
from bench.results import Results
from bench.world import World

READ_AT = 1_000_000
_TRIES = 15


def run(world: World, results: Results) -> None:
    """One database that grows; what is to be read at one million rows is read when it has them."""
    url, filled = world.fresh("postgresql"), 0
    claims: dict[int, list[float]] = {}
    for size in SIZES:
        fill(url, first=filled + 1, last=size)
        filled = size
        claims[size] = asyncio.run(_claims(url))
        if size == READ_AT:
            _status(world, url, results, size)
    _report_claims(claims, results)
    fill_history(url, last=HISTORY)
    lists.measure(url, results)
    world.filled[BIG] = url
    _claims_on_sqlite(world, results)


def _status(world: World, url: str, results: Results, size: int) -> None:
    pairs, numbers = Pairs(), random.Random(1)  # noqa: S311 - which rows are read, not a secret
    with servers.ceiling(core=world.server_core) as bare, servers.receiver(url, core=world.server_core) as ours:
        ceiling = Ceiling(bare)
        for _ in range(5):
            asked = [_get(numbers.randint(1, size)) for _ in range(50_000)]
            act = partial(load.run, [ours.port], asked, connections=64, seconds=2)
            ceiling.measure(pairs, ours, act)
    results.add(
        f"GET /api/v1/generations/{{id}}, {size:,} rows, 64 connections",
        target="≥ 0.36 of the bare uvicorn",
        measured=pairs.measured(),
        is_reached=pairs.ratio >= 0.36,
    )
    results.note(f"status reads: {pairs.costs()}")


def _get(number: int) -> bytes:
    path = f"/api/v1/generations/task_{number}"
    return f"GET {path} HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {servers.TOKEN}\r\n\r\n".encode()


async def _claims(url: str) -> list[float]:
    """Milliseconds to claim 100 of those that are due; taken back, so that the next one finds the same."""
    database, now = Database(url), datetime.now(UTC)
    due, times = DuePolls(is_sqlite=url.startswith("sqlite")), list[float]()
    for _ in range(_TRIES + 1):
        async with database.engine.connect() as connection:
            started = time.perf_counter()
            claimed, _ = await due.claim(connection, now=now, until=now + LEASE, most=100, after="")
            times.append((time.perf_counter() - started) * 1000)
            await connection.rollback()
        if len(claimed) != 100:
            raise AssertionError(f"{len(claimed)} claimed, 100 expected")
    await database.dispose()
    return times[1:]


def _claims_on_sqlite(world: World, results: Results) -> None:
    url, filled = world.fresh("sqlite"), 0
    claims: dict[int, list[float]] = {}
    for size in SIZES[:2]:
        fill(url, first=filled + 1, last=size)
        filled = size
        claims[size] = asyncio.run(_claims(url))
    world.drop(url)
    _report_claims(claims, results, on=" on SQLite")


def _report_claims(claims: dict[int, list[float]], results: Results, *, on: str = "") -> None:
    medians = {size: statistics.median(times) for size, times in claims.items()}
    growth = max(medians.values()) / min(medians.values())
    results.add(
        f"claim 100 due generations{on}, 1 % due, of " + ", ".join(f"{size:,}" for size in medians),
        target="≤ 3 ms, the largest ≤ 1.3x the smallest",
        measured=f"{', '.join(f'{it:.1f}' for it in medians.values())} ms, {growth:.2f}x",
        is_reached=max(medians.values()) <= 3 and growth <= 1.3,
    )
