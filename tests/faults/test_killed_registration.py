"""Killed at any statement or piece of a call, the next start ends with one endpoint and a secret that verifies."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import zip_longest
from pathlib import Path

from sqlalchemy import select

from app.core.database import Database
from app.ledger.tables import deliveries
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.sandbox.state import Sandbox
from tests.support.databases import Databases, SqliteDatabases
from tests.support.fork_client import ForkServer, fork_server
from tests.support.registration_lifecycle import PHASES, Life
from tests.support.run_counts import counted, delivered_by, is_over

AT_ONCE = 6
LONG = "FAULT_POINTS_ALL"
"""Set: every point on both databases. Unset: every point on one of them, alternately."""


@asynccontextmanager
async def _life(parent: ForkServer, databases: Databases, directory: Path, **kills: str) -> AsyncIterator[Life]:
    url = await asyncio.to_thread(databases.migrated)
    try:
        async with serve_sandbox(Sandbox(settings=SandboxSettings(retry_delays=()))) as rivya:
            yield Life(parent, rivya, url, directory, kills)
    finally:
        await asyncio.to_thread(databases.drop, url)


def _assert_no_secret_leaked(life: Life) -> None:
    emitted = life.log.read_text() + "".join(life.answers)
    for endpoint in life.rivya.sandbox.endpoints.by_id.values():
        for secret in (endpoint.secret, *endpoint.past_secrets):
            assert secret not in emitted
            assert secret.removeprefix("whsec_") not in emitted


async def _assert_kept(life: Life) -> None:
    """What of Rivya's deliveries was answered 2xx, while processes died, is in the database."""
    database = Database(life.database_url)
    async with database.read() as connection:
        rows = await connection.execute(select(deliveries.c.event_id, deliveries.c.attempts))
        recorded = {row.event_id: row.attempts for row in rows}
    await database.dispose()
    counted(*delivered_by(life.rivya.sandbox.sender.log), recorded, faults=len(life.killed))


async def _points(parent: ForkServer, databases: Databases, directory: Path) -> dict[str, list[str]]:
    async with _life(parent, databases, directory) as life:
        await life.live()
        _assert_no_secret_leaked(life)
        points: dict[str, list[str]] = {phase: [] for phase in PHASES}
        for phase, point in life.points():
            points[phase].append(point)
        return points


def _chosen(plans: list[dict[str, str]], databases: Databases) -> list[dict[str, str]]:
    """All of them in the long form; else every other one, those that the other kind of database leaves out."""
    if os.environ.get(LONG):
        random.shuffle(plans)  # there may not be time for all
        return plans
    return plans[0::2] if isinstance(databases, SqliteDatabases) else plans[1::2]


async def test_a_process_killed_at_any_point_of_its_life_leaves_what_the_next_one_finishes(
    databases: Databases, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async with fork_server() as parent:
        points = await _points(parent, databases, tmp_path)
        plans = [
            {phase: point for phase, point in zip(PHASES, row, strict=True) if point is not None}
            for row in zip_longest(*(points[phase] for phase in PHASES))
        ]
        plans = _chosen(plans, databases)
        planned: list[tuple[str, str]] = []
        killed: list[tuple[str, str]] = []
        room = asyncio.Semaphore(AT_ONCE)

        async def run(plan: dict[str, str]) -> None:
            async with room:
                if is_over():
                    return
                planned.extend(plan.items())
                async with _life(parent, databases, tmp_path, **plan) as life:
                    await life.live()
                    _assert_no_secret_leaked(life)
                    await _assert_kept(life)
                    killed.extend(life.killed)

        async with asyncio.TaskGroup() as running:
            for plan in plans:
                running.create_task(run(plan))
    lines = [f"{phase}: {'; '.join(point for at, point in killed if at == phase)}" for phase in PHASES]
    record_property("reported", "\n  ".join([f"killed at {len(killed)} of {len(planned)} fault points:", *lines]))
    assert len(killed) >= 0.9 * len(planned), sorted(set(planned) - set(killed))
    assert is_over() or len(killed) >= 0.4 * sum(map(len, points.values()))
