"""A leader is killed and its lease left to run out by itself: nobody leads before, another one does soon after."""

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
from sqlalchemy import select

from app.core.database import Database
from app.core.leases import leases
from app.endpoint.reconciler import LEASE
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.sandbox.state import Sandbox
from tests.soak.audit import Verdict, audit, read_all
from tests.soak.fleet import Fleet, fleet
from tests.soak.killing import come_to_an_end
from tests.soak.load import Load
from tests.support.fork_client import ForkServer
from tests.support.run_counts import RunCounts

TERM = 15
"""Seconds: what is set where nothing is set."""
MOST = 2 * TERM
"""From the kill until another one leads: what was left of the lease, and the longest time between two tries."""


@dataclass(frozen=True)
class Lapse:
    """Seconds from the kill: until the lease ended, and until another replica had it."""

    ended: float
    taken: float
    counts: RunCounts
    verdict: Verdict

    @property
    def is_as_promised(self) -> bool:
        """Not before the lease ended (a tenth of a second between two clocks aside), and soon after."""
        return self.ended - 0.1 <= self.taken <= MOST and self.verdict.is_clean


async def let_a_lease_run_out(parent: ForkServer, database_url: str, directory: Path) -> Lapse:
    """Two replicas under load; the one that leads is killed. Raises TimeoutError where nobody ever leads again."""
    sandbox = Sandbox(settings=SandboxSettings(reorder_seconds=0.3, retry_delays=(0.2, 0.5, 1.0)))
    database = Database(database_url)
    try:
        async with (
            serve_sandbox(sandbox) as rivya,
            fleet(parent, rivya, database_url, directory, size=2, RECEIVER_LEADER_LEASE=str(TERM)) as replicas,
        ):
            load = Load(sandbox, replicas.url, random.Random(1))
            running = asyncio.create_task(load.run())
            port = await leader(replicas)
            holder, until = await _lease(database)
            await replicas.kill(port)
            killed, ended = time.monotonic(), (until - datetime.now(UTC)).total_seconds()
            async with asyncio.timeout(2 * MOST):
                while (await _lease(database))[0] == holder:
                    await replicas.watch(_other(replicas, port), seconds=0.05)
            taken = time.monotonic() - killed
            await replicas.start(port)
            load.stop()
            await running
            await come_to_an_end(replicas, database, is_hurried=True)
            await sandbox.scheduler.drain()
            verdict = audit(await read_all(database), load.account, sandbox)
            return Lapse(ended, taken, verdict.counts(load.account, sandbox, faults=replicas.kills), verdict)
    finally:
        await database.dispose()


def _other(replicas: Fleet, port: int) -> int:
    [other] = [each for each in replicas.ports if each != port]
    return other


async def _lease(database: Database) -> tuple[str, datetime]:
    async with database.read() as connection:
        row = (await connection.execute(select(leases).where(leases.c.name == LEASE))).one()
    return row.holder, row.held_until


async def leader(replicas: Fleet) -> int:
    """The port of the one that says so."""
    async with asyncio.timeout(MOST), httpx.AsyncClient(timeout=MOST) as client:
        while True:
            for port in replicas.ports:
                metrics = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
                if "\nreceiver_leader 1.0" in metrics:
                    return port
                await replicas.watch(port, seconds=0.05)
