"""The lists are served by indexes on PostgreSQL, whatever the page: no scan, no sort, no offset."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import combinations, product
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from app.core.database import Database
from app.core.pagination import MOST_WALKED
from app.ledger.models import MOST_OVERDUE, DeliveryFilter, GenerationFilter, Position, Status, Tracking
from app.ledger.queries import Queries
from tests.support.clock import NOON
from tests.support.row_counter import RowsRead

ROWS = 5000
FILL = """
INSERT INTO generations (id, status, model, rivya_object, client_request_id, submitted_by, first_seen_at, settled_at,
                         settled_by, failed_at, last_number, revision, polls)
SELECT 'task_' || n, CASE WHEN n % 2 = 0 THEN 'queued' WHEN n % 50 = 1 THEN 'failed' ELSE 'succeeded' END,
       CASE WHEN n % 500 = 3 THEN 'rare' WHEN n <= 3000 THEN 'past' ELSE 'model-' || n % 8 END, '{}', 'order-' || n,
       CASE WHEN n % 500 = 3 THEN 'rare' WHEN n <= 3000 THEN 'past' ELSE 'token' END, start + n * interval '1 second',
       CASE WHEN n % 2 <> 0 THEN start END,
       CASE WHEN n % 2 <> 0 THEN 'webhook' END, CASE WHEN n % 50 = 1 THEN start END, 1, 1, 0
FROM generate_series(1, :rows) AS n, (SELECT CAST(:start AS timestamptz) AS start) AS noon
"""
FILL_POLLS = """
INSERT INTO polls (generation_id, first_seen_at, source, state, next_poll_at, polls, failures, not_found_count)
SELECT id, first_seen_at, 'submit', 'watching', first_seen_at - interval '1 day', 0, 0, 0
FROM generations WHERE settled_at IS NULL
"""
FILL_DELIVERIES = """
INSERT INTO deliveries (event_id, event_type, generation_id, received_at, body, headers, outcome, attempts)
SELECT 'evt_' || n, 'generation.succeeded', 'task_' || n, start + n * interval '1 second', '', '{}', 'applied', 1
FROM generate_series(1, :rows) AS n, (SELECT CAST(:start AS timestamptz) AS start) AS noon
"""
MIDDLE = Position(NOON + timedelta(seconds=ROWS // 2), "task_2500")

INDEXED = [
    (GenerationFilter(), "ix_generations_first_seen_at_id"),
    (GenerationFilter(status=Status.FAILED), "ix_generations_failed"),
    (GenerationFilter(model="rare"), "ix_generations_model_first_seen_at_id"),
    (GenerationFilter(client_request_id="order-7"), "ix_generations_client_request_id"),
    (GenerationFilter(submitted_by="rare"), "ix_generations_submitted_by"),
    (GenerationFilter(created_after=NOON), "ix_generations_first_seen_at_id"),
]


@asynccontextmanager
async def filled(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    try:
        async with database.transaction() as connection:
            await connection.execute(text(FILL), {"start": NOON, "rows": ROWS})
            await connection.execute(text(FILL_POLLS))
            await connection.execute(text(FILL_DELIVERIES), {"start": NOON, "rows": ROWS})
        async with database.engine.connect() as connection:
            committing = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await committing.execute(text("VACUUM ANALYZE"))
        yield database
    finally:
        await database.dispose()


class Explained:
    """Asks PostgreSQL for the plan of every SELECT that is sent, just before it is sent."""

    def __init__(self, database: Database) -> None:
        self.plans: list[str] = []
        for engine in (database.engine, database.caller_engine):
            event.listen(engine.sync_engine, "before_cursor_execute", self._explain)

    def _explain(self, connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and "set_config" not in statement:
            cursor.execute(f"EXPLAIN {statement}", parameters)
            self.plans.append("\n".join(row[0] for row in cursor.fetchall()))


@pytest.mark.parametrize(("chosen", "index"), INDEXED, ids=[index for _, index in INDEXED])
async def test_a_first_page_of_generations_is_read_from_its_own_index(
    postgres_url: str, chosen: GenerationFilter, index: str
) -> None:
    async with filled(postgres_url) as database:
        explained = Explained(database)
        await Queries(database).generations(chosen, after=None, limit=50)
        [plan] = explained.plans
        assert f"Index Scan Backward using {index} " in plan
        assert "Sort" not in plan
        assert "Filter" not in plan


@pytest.mark.parametrize("chosen", [chosen for chosen, _ in INDEXED], ids=[index for _, index in INDEXED])
async def test_a_next_page_of_generations_begins_where_the_last_one_ended(
    postgres_url: str, chosen: GenerationFilter
) -> None:
    async with filled(postgres_url) as database:
        explained = Explained(database)
        await Queries(database).generations(chosen, after=MIDDLE, limit=50)
        [plan] = explained.plans
        # Which index is the planner's choice; either way nothing before the position is read.
        assert (
            "ROW(generations.first_seen_at, generations.id) < ROW(" in plan or "ROW(first_seen_at, id) < ROW(" in plan
        )
        assert "Sort" not in plan


ONE_BY_ONE: dict[str, tuple[Any, ...]] = {
    "status": (*Status,),
    "tracking": (*Tracking,),
    "model": ("model-1", "rare", "past"),
    "submitted_by": ("token", "rare", "past"),
    "client_request_id": ("order-7",),
    "created_after": (NOON,),
    "created_before": (NOON + timedelta(seconds=9),),
    "owner": ("token", "nobody", "past"),
}


async def test_neither_one_filter_nor_two_together_read_more_rows_than_a_walk_has(postgres_url: str) -> None:
    """So a page costs the same on 5,000,000 rows as on these, but for the depth of an index.

    Nor where what a filter matches is most of the rows, but is all old.
    """
    async with filled(postgres_url) as database:
        read, queries = RowsRead(database, "generations"), Queries(database)
        for names in (*combinations(ONE_BY_ONE, 1), *combinations(ONE_BY_ONE, 2)):
            for values in product(*(ONE_BY_ONE[name] for name in names)):
                chosen = GenerationFilter(**dict(zip(names, values, strict=True)))
                for after in (None, MIDDLE):
                    await queries.generations(chosen, after=after, limit=50)
                # What a fenced token sees is merged from two walks: of what it submitted, and of what it tracks.
                assert max(read.counts) <= 2 * MOST_WALKED + 100, chosen
                read.counts.clear()
        assert ROWS // 2 > 2 * MOST_WALKED + 100


@pytest.mark.parametrize(("end", "is_cursor_used"), [(ROWS // 4, False), (ROWS, True)], ids=["behind it", "before it"])
async def test_a_page_begins_at_the_cursor_or_at_the_end_of_the_time_that_is_asked_for(
    postgres_url: str, end: int, is_cursor_used: bool
) -> None:
    """Whichever is lower: with both, PostgreSQL begins at the cursor, and reads all between the two."""
    async with filled(postgres_url) as database:
        explained, before = Explained(database), NOON + timedelta(seconds=end)
        chosen = GenerationFilter(created_before=before)
        page = await Queries(database).generations(chosen, after=MIDDLE, limit=50)
        assert page.items[0].first_seen_at == min(before, MIDDLE.at) - timedelta(seconds=1)
        assert ("< ROW(" in explained.plans[0]) is is_cursor_used


@pytest.mark.parametrize("after", [None, MIDDLE], ids=["first page", "next page"])
async def test_a_page_of_deliveries_is_read_from_an_index(postgres_url: str, after: Position | None) -> None:
    async with filled(postgres_url) as database:
        explained = Explained(database)
        await Queries(database).deliveries(DeliveryFilter(), after=after, limit=50)
        [plan] = explained.plans
        assert "Index Scan Backward using ix_deliveries_received_at_event_id " in plan
        assert "Sort" not in plan


async def test_reads_by_id_and_the_look_for_settled_ones_use_the_key(postgres_url: str) -> None:
    async with filled(postgres_url) as database:
        explained = Explained(database)
        queries = Queries(database)
        await queries.settled_among([f"task_{n}" for n in range(20)])
        await queries.deliveries(DeliveryFilter(generation_id="task_1"), after=None, limit=50)
        assert ["Seq Scan" in plan for plan in explained.plans] == [False, False], explained.plans


async def test_the_standing_is_told_from_indexes(postgres_url: str) -> None:
    async with filled(postgres_url) as database:
        explained = Explained(database)
        standing = await Queries(database).describe_status(NOON + timedelta(seconds=1))
        assert (standing.open, standing.overdue) == (ROWS // 2, MOST_OVERDUE)
        assert "Seq Scan" not in explained.plans[0]


async def test_the_deliveries_of_a_generation_are_read_without_a_walk_over_all(postgres_url: str) -> None:
    async with filled(postgres_url) as database:
        read = RowsRead(database, "deliveries")
        for after in (None, MIDDLE):
            await Queries(database).deliveries(DeliveryFilter(generation_id="task_7"), after=after, limit=50)
        assert len(read.counts) == 2
        assert max(read.counts) < 10
