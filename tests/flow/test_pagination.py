"""Lists by id: filters that few rows match give short pages until the end, and none reads more than a walk has."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Table, insert, text

from app.core import pagination
from app.core.audit import Audit, AuditFilter, audit
from app.core.database import Database
from app.core.pagination import MOST_WALKED
from app.core.records import uuid7
from app.notifications.models import NotificationState
from app.notifications.repository import NotificationFilter, NotificationRepository
from app.notifications.tables import notifications
from tests.support.clock import NOON, ManualClock
from tests.support.row_counter import RowsRead

ROWS = 3 * MOST_WALKED
PAST = ROWS * 2 // 3
"""So many of the first rows are of a token, and of an endpoint, that does nothing any more."""


def at(number: int) -> datetime:
    return NOON + timedelta(seconds=number)


def entry(number: int) -> Mapping[str, Any]:
    actor = "past" if number < PAST else "ops"
    return {"id": str(uuid7(at(number))), "recorded_at": at(number), "actor": actor, "action": "token.created"}


def notification(number: int) -> Mapping[str, Any]:
    state = NotificationState.DEAD if number % 2 else NotificationState.DELIVERED
    endpoint = "wh_past" if number < PAST else "wh_1"
    return {
        "id": str(uuid7(at(number))),
        "queue": endpoint,
        "subscription_id": endpoint,
        "token": "past" if number < PAST else "shop",
        "event_id": f"evt_{number}",
        "event_type": "generation.succeeded",
        "generation_id": f"task_{number}",
        "number": 1,
        "created_at": at(number),
        "ended_at": at(number),
        "attempts": 1,
        "state": state,
        "attempt_log": "[]",
        "body": b"",
    }


@asynccontextmanager
async def filled(url: str, table: Table, rows: Sequence[Mapping[str, Any]]) -> AsyncIterator[Database]:
    database = Database(url)
    try:
        async with database.transaction() as connection:
            await connection.execute(insert(table), rows)
        if not database.is_sqlite:
            async with database.engine.connect() as connection:
                committing = await connection.execution_options(isolation_level="AUTOCOMMIT")
                await committing.execute(text(f"VACUUM ANALYZE {table.name}"))
        yield database
    finally:
        await database.dispose()


async def audited(database: Database, chosen: AuditFilter) -> tuple[list[int], int]:
    """The seconds after noon of all that is listed, and in how many pages."""
    listed, after, pages = list[int](), None, 0
    while after is not None or pages == 0:
        page = await Audit(database, clock=ManualClock()).list(chosen, after=after, limit=2)
        listed += [round((row["recorded_at"] - NOON).total_seconds()) for row in page.rows]
        after, pages = page.last, pages + 1
    return listed, pages


async def test_the_audit_is_listed_in_short_pages_where_few_rows_match(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagination, "MOST_WALKED", 3)
    rows = [{**entry(PAST + number), "actor": "boss" if number == 1 else "ops"} for number in range(8)]
    async with filled(database_url, audit, rows) as database:
        assert await audited(database, AuditFilter(actor="boss")) == ([PAST + 1], 3)
        assert await audited(database, AuditFilter(actor="nobody")) == ([], 3)
        assert await audited(database, AuditFilter()) == ([*range(PAST + 7, PAST - 1, -1)], 4)
        first, end = at(PAST + 3), at(PAST + 5)
        chosen = AuditFilter(actor="ops", recorded_after=first, recorded_before=end)
        assert await audited(database, chosen) == ([PAST + 4, PAST + 3], 1)


async def test_no_page_of_the_audit_reads_more_rows_than_a_walk_has(postgres_url: str) -> None:
    async with filled(postgres_url, audit, [entry(number) for number in range(ROWS)]) as database:
        read = RowsRead(database, "audit")
        for chosen in (
            AuditFilter(actor="past"),
            AuditFilter(action="unheard.of", recorded_after=NOON),
            AuditFilter(target="shop", recorded_before=at(ROWS - 10)),
            AuditFilter(recorded_before=at(9)),
        ):
            await Audit(database, clock=ManualClock()).list(chosen, after=None, limit=50)
        assert max(read.counts) <= MOST_WALKED + 1, "one of the same millisecond"


NOTIFICATIONS = [
    (NotificationFilter(token="past"), PAST),
    (NotificationFilter(endpoint_id="wh_past"), PAST),
    (NotificationFilter(endpoint_id="wh_past", state=NotificationState.DELIVERED), PAST // 2),
    (NotificationFilter(token="shop", state=NotificationState.DEAD), (ROWS - PAST) // 2),
    (NotificationFilter(token="shop", endpoint_id="wh_past"), 0),
    (NotificationFilter(state=NotificationState.PENDING), 0),
    (NotificationFilter(generation_id="task_7", state=NotificationState.DEAD), 1),
]


@pytest.mark.parametrize(("chosen", "count"), NOTIFICATIONS)
async def test_notifications_are_listed_whole_and_no_page_reads_more_rows_than_a_walk_has(
    database_url: str, chosen: NotificationFilter, count: int
) -> None:
    """Nor where the filter matches most of the rows, but only old ones."""
    async with filled(database_url, notifications, [notification(number) for number in range(ROWS)]) as database:
        read = None if database.is_sqlite else RowsRead(database, "notifications")
        listed, after, pages = list[str](), None, 0
        while after is not None or pages == 0:
            page = await NotificationRepository(database).list_notifications(chosen, after=after, limit=200)
            listed += [row["id"] for row in page.rows]
            after, pages = page.last, pages + 1
        assert len(listed) == count
        assert listed == sorted(set(listed), reverse=True)
        if read is not None:
            assert max(read.counts) <= MOST_WALKED
