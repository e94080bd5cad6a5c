"""What a sender reads does not depend on how much was sent before, nor on what waits for a later time."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.core.database import Database
from app.notifications.claims import DUE, Claims
from app.notifications.models import NotificationState
from app.notifications.repository import LOOK, NotificationRepository
from app.notifications.tables import notifications
from tests.support.clock import NOON

ENDED, WAITING, QUEUES = 20_000, 2_000, 20


async def fill(database: Database) -> None:
    """Much that is delivered, and much that waits until tomorrow; one notification of each queue is due."""
    states = [NotificationState.DELIVERED] * ENDED + [NotificationState.PENDING] * WAITING
    rows: list[dict[str, Any]] = [
        {
            "id": f"{number:08}",
            "queue": f"whend_{number % QUEUES:02}",
            "subscription_id": f"whend_{number % QUEUES:02}",
            "token": "shop",
            "event_id": f"evt_{number}",
            "event_type": "generation.succeeded",
            "generation_id": f"g{number}",
            "number": 1,
            "created_at": NOON,
            "ended_at": NOON if state is NotificationState.DELIVERED else None,
            "next_attempt_at": None
            if state is NotificationState.DELIVERED
            else NOON + timedelta(days=number >= ENDED + QUEUES),
            "attempts": 0,
            "state": state,
            "attempt_log": "[]",
            "body": b"{}",
        }
        for number, state in enumerate(states)
    ]
    async with database.transaction() as connection:
        await connection.execute(notifications.insert(), rows)


async def plan(database: Database, statement: str) -> str:
    explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN (ANALYZE, BUFFERS OFF)"
    async with database.read() as connection:
        rows = (await connection.execute(sa.text(f"{explain} {statement}"))).all()
    return "\n".join(str(row[-1]) for row in rows)


@pytest.mark.parametrize("is_analyzed", [False, True], ids=["without statistics", "with statistics"])
async def test_the_queues_that_are_due_are_read_from_an_index(database_url: str, *, is_analyzed: bool) -> None:
    database = Database(database_url)
    await fill(database)
    if is_analyzed:
        async with database.engine.connect() as connection:
            await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(sa.text("ANALYZE"))
    look = str(LOOK.compile(database.engine, compile_kwargs={"literal_binds": True}))
    for statement in (str(DUE), look):
        text = await plan(database, statement)
        assert "ix_notifications_due" in text
        assert "Seq Scan on notifications" not in text
        assert "SCAN notifications" not in text.replace("SCAN notifications USING", "")
    claims, repository = Claims(database), NotificationRepository(database)
    assert await claims.next_due() == NOON
    assert (await repository.look()).has_pending
    _, claimed = await claims.turn([], 100, most_failing=0, now=NOON, may_send=lambda _: True)
    assert len(claimed) == QUEUES
    assert {each.id for each in claimed} == {f"{ENDED + number:08}" for number in range(QUEUES)}
    await database.dispose()
