"""Killed at any statement or piece of a call, the next start ends with one endpoint and a secret that verifies."""

import asyncio
import math
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
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

AT_ONCE = 9
KILLS = 2
"""In each phase of a life: a later one may interrupt what finishes the work after an earlier one."""
LONG = "FAULT_POINTS_ALL"
"""Set: every point on both databases. Unset: every point on one of them, alternately."""


@asynccontextmanager
async def _life(parent: ForkServer, databases: Databases, directory: Path, **kills: list[str]) -> AsyncIterator[Life]:
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


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The fault points of each phase, in the order in which a process that nobody kills passes them."""
    directory = tmp_path_factory.mktemp("points")
    return asyncio.run(_points(SqliteDatabases(directory), directory))


async def _points(databases: Databases, directory: Path) -> dict[str, list[str]]:
    async with fork_server() as parent, _life(parent, databases, directory) as life:
        await life.live()
        _assert_no_secret_leaked(life)
        points = life.points()
        return {phase: [point for at, point in points if at == phase] for phase in PHASES}


def _plans(points: dict[str, list[str]], databases: Databases) -> list[dict[str, list[str]]]:
    """The kills of each life: all points in the long form; else every other one, per kind of database."""
    if not os.environ.get(LONG):
        start = 0 if isinstance(databases, SqliteDatabases) else 1
        points = {phase: points[phase][start::2] for phase in PHASES}
    lives = math.ceil(max(map(len, points.values())) / KILLS)
    plans = [{phase: points[phase][number::lives] for phase in PHASES} for number in range(lives)]
    random.shuffle(plans)  # there may not be time for all
    return plans


async def test_a_process_killed_at_any_point_of_its_life_leaves_what_the_next_one_finishes(
    points: dict[str, list[str]],
    databases: Databases,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    planned: list[tuple[str, str]] = []
    killed: list[tuple[str, str]] = []
    room = asyncio.Semaphore(AT_ONCE)

    async def run(plan: dict[str, list[str]]) -> None:
        async with room:
            if is_over():
                return
            planned.extend((phase, point) for phase, chosen in plan.items() for point in chosen)
            async with _life(parent, databases, tmp_path, **plan) as life:
                await life.live()
                _assert_no_secret_leaked(life)
                await _assert_kept(life)
                killed.extend(life.killed)

    async with fork_server() as parent, asyncio.TaskGroup() as running:
        for plan in _plans(points, databases):
            running.create_task(run(plan))
    lines = [f"{phase}: {'; '.join(point for at, point in killed if at == phase)}" for phase in PHASES]
    record_property("reported", "\n  ".join([f"killed at {len(killed)} of {len(planned)} fault points:", *lines]))
    assert len(killed) >= 0.9 * len(planned), sorted(set(planned) - set(killed))
    assert is_over() or len(killed) >= 0.4 * sum(map(len, points.values()))
