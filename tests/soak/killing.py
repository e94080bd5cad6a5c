"""The scenario of killed processes: load, kills, then everything comes to its end and is compared."""

import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select, update

from app.core.database import Database
from app.ledger.tables import polls
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.sandbox.state import Sandbox
from app.submission.store import submissions
from tests.soak.account import Account
from tests.soak.audit import Verdict, audit, read_all
from tests.soak.fleet import Fleet, fleet
from tests.soak.load import Load
from tests.support.fork_client import ForkServer
from tests.support.run_counts import RunCounts

LEAST, MOST = 0.05, 1.3
"""Seconds from one kill to the next."""
SETTLING = 100.0
"""Seconds until everything has come to its end: a lease is 60."""


@dataclass(frozen=True)
class Outcome:
    """What happened, and what it came to."""

    kills: int
    account: Account
    verdict: Verdict
    polls: int
    counts: RunCounts


async def kill_under_load(
    parent: ForkServer,
    database_url: str,
    directory: Path,
    *,
    size: int,
    kills: int,
    seed: int,
    has_time: bool,
    until: float = float("inf"),
) -> Outcome:
    """Kill so many times, fewer where it is `until` by time.monotonic.

    `has_time`: wait until leases run out, instead of letting them run out now.
    """
    chance = random.Random(seed)
    sandbox = Sandbox(settings=SandboxSettings(reorder_seconds=0.3, retry_delays=(0.2, 0.5, 1.0)))
    database = Database(database_url)
    try:
        async with (
            serve_sandbox(sandbox) as rivya,
            fleet(parent, rivya, database_url, directory, size=size) as replicas,
        ):
            load = Load(sandbox, replicas.url, chance)
            running = asyncio.create_task(load.run())
            for number in range(kills):
                if number and time.monotonic() > until:
                    break
                await replicas.kill_at_random(chance, least=LEAST, most=MOST)
            load.stop()
            await running
            await come_to_an_end(replicas, database, is_hurried=not has_time)
            await sandbox.scheduler.drain()
            verdict = audit(await read_all(database), load.account, sandbox)
            counts = verdict.counts(load.account, sandbox, faults=replicas.kills)
            return Outcome(replicas.kills, load.account, verdict, sandbox.calls.counts["generations.get"], counts)
    finally:
        await database.dispose()


async def come_to_an_end(replicas: Fleet, database: Database, *, is_hurried: bool) -> None:
    for port in replicas.ports:
        await replicas.until_ready(port)
    if is_hurried:
        await _let_leases_run_out(database)
    try:
        async with asyncio.timeout(SETTLING):
            while await _open(database):
                await replicas.watch(replicas.ports[0], seconds=0.2)
    except TimeoutError:
        pass  # the comparison says what is left open


async def _open(database: Database) -> int:
    submitted = select(func.count()).select_from(submissions).where(submissions.c.state != "accepted")
    tracked = select(func.count()).select_from(polls)
    async with database.read() as connection:
        return sum([(await connection.execute(each)).scalar_one() for each in (submitted, tracked)])


async def _let_leases_run_out(database: Database) -> None:
    """Move what killed processes held to now, as 60 seconds would."""
    past = func.now() if not database.is_sqlite else func.datetime("now", "-1 second")
    async with database.transaction() as connection:
        held = submissions.c.next_attempt_at.is_not(None)
        await connection.execute(update(submissions).where(held).values(next_attempt_at=past))
        held = polls.c.next_poll_at.is_not(None)
        await connection.execute(update(polls).where(held).values(next_poll_at=past, lease_until=None))
