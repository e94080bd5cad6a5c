"""What is rare is found without reading what is usual: on both databases, also before anybody has run ANALYZE."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from app.core.database import Database
from app.ledger.models import (
    MOST_OVERDUE,
    DeliveryFilter,
    GenerationFilter,
    Outcome,
    Position,
    Source,
    Status,
    Tracking,
)
from app.ledger.queries import Queries
from app.ledger.sql import list_deliveries, list_generations, search_generations
from app.ledger.tables import deliveries, generations, polls
from app.operations.alarms import AlarmQuery
from app.operations.commands import page_statement
from app.operations.retention import body_page, generation_page
from app.submission.store import OF_GENERATION
from tests.support.clock import NOON

ROWS = 3000
AFTER = Position(NOON + timedelta(seconds=ROWS // 2), "x")


def delivery(number: int) -> dict[str, Any]:
    rare = number % 500 == 7
    return {
        "event_id": f"evt_{number}",
        "event_type": "generation.archived" if rare else "generation.succeeded",
        "generation_id": f"task_{number}",
        "received_at": NOON + timedelta(seconds=number),
        "body": b"{}",
        "headers": "{}",
        "outcome": Outcome.UNKNOWN_TYPE if rare else Outcome.APPLIED,
        "attempts": 1,
    }


def generation(number: int) -> dict[str, Any]:
    is_open = number % 2 == 0
    first_seen_at = NOON + timedelta(seconds=number)
    return {
        "id": f"task_{number}",
        "status": Status.QUEUED if is_open else Status.FAILED if number % 50 == 1 else Status.SUCCEEDED,
        "rivya_object": "{}",
        "first_seen_at": first_seen_at,
        "settled_at": None if is_open else first_seen_at,
        "settled_by": None if is_open else "webhook",
        "failed_at": first_seen_at if number % 50 == 1 else None,
        "last_number": 1,
        "revision": 1,
        "polls": 0,
    }


def poll(number: int) -> dict[str, Any]:
    first_seen_at = NOON + timedelta(seconds=number)
    return {
        "generation_id": f"task_{number}",
        "first_seen_at": first_seen_at,
        "source": Source.SUBMIT,
        "state": Tracking.WATCHING,
        "next_poll_at": first_seen_at,
        "polls": 0,
        "failures": 0,
        "not_found_count": 0,
    }


@pytest.fixture(scope="module")
async def database(shared_database_url: str) -> AsyncIterator[Database]:
    """Filled once: nothing here writes."""
    database = Database(shared_database_url)
    try:
        async with database.transaction() as connection:
            await connection.execute(insert(deliveries), [delivery(number) for number in range(ROWS)])
            await connection.execute(insert(generations), [generation(number) for number in range(ROWS)])
            await connection.execute(insert(polls), [poll(number) for number in range(0, ROWS, 2)])
        yield database
    finally:
        await database.dispose()


async def plan(database: Database, statement: Any) -> str:
    """As the database tells it, without statistics."""
    async with database.read() as connection:
        compiled = statement.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
        values = tuple(compiled.params[name] for name in compiled.positiontup or ())
        if database.is_sqlite:
            naive_values = tuple(value.replace(tzinfo=None) if hasattr(value, "tzinfo") else value for value in values)
            rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", tuple(map(str, naive_values)))
            return "\n".join(row[-1] for row in rows)
        await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # of an index that can't serve, none remains
        return "\n".join(row[0] for row in await connection.exec_driver_sql(f"EXPLAIN {compiled}", values))


def of_deliveries(**chosen: Any) -> Any:
    return lambda is_sqlite: list_deliveries(DeliveryFilter(**chosen), after=AFTER, limit=51, is_sqlite=is_sqlite).page


def of_generations(**chosen: Any) -> Any:
    return lambda is_sqlite: (
        list_generations(GenerationFilter(**chosen), after=AFTER, limit=51, is_sqlite=is_sqlite).page
    )


def of_replay(**chosen: Any) -> Any:
    return lambda is_sqlite: page_statement(DeliveryFilter(**chosen), AFTER, is_sqlite=is_sqlite)


def of_old_ones(page: Callable[[Position], Any]) -> Any:
    return lambda _: page(AFTER).params(before=NOON + timedelta(days=1), most=100)


def of_generation(is_sqlite: bool) -> Any:
    return list_deliveries(DeliveryFilter(generation_id="task_7"), after=None, limit=51, is_sqlite=is_sqlite).page


def of_search(owner: str | None) -> Any:
    return lambda _: search_generations("task_7", owner=owner, limit=51)


READ_FROM: dict[str, tuple[Any, str]] = {
    "the create of a generation": (
        lambda _: OF_GENERATION.params(generation_id="task_7"),
        "ix_submissions_generation_id",
    ),
    "generations by the beginning of their ids": (of_search(None), "generations"),
    "a token's generations by the beginning of their ids": (of_search("shop"), "generations"),
    "unreadable deliveries": (of_deliveries(outcome=Outcome.UNREADABLE), "ix_deliveries_outcome"),
    "deliveries of a rare type": (of_deliveries(event_type="generation.archived"), "ix_deliveries_event_type"),
    "applied deliveries": (of_deliveries(outcome=Outcome.APPLIED), "ix_deliveries_received_at_event_id"),
    "deliveries of the usual type": (
        of_deliveries(event_type="generation.succeeded"),
        "ix_deliveries_received_at_event_id",
    ),
    "a replay of conflicts": (of_replay(outcome=Outcome.CONFLICT), "ix_deliveries_outcome"),
    "a replay of a time": (of_replay(received_after=NOON), "ix_deliveries_received_at_event_id"),
    "watched generations": (of_generations(tracking=Tracking.WATCHING), "ix_polls_state_first_seen_at"),
    "lost generations": (of_generations(tracking=Tracking.LOST), "ix_polls_state_first_seen_at"),
    "queued generations": (of_generations(status=Status.QUEUED), "ix_polls_state_first_seen_at"),
    "settled generations": (of_generations(tracking=Tracking.SETTLED), "ix_generations_first_seen_at_id"),
    "succeeded generations": (of_generations(status=Status.SUCCEEDED), "ix_generations_first_seen_at_id"),
    "failed generations": (of_generations(status=Status.FAILED), "ix_generations_failed"),
    "generations to be pruned": (of_old_ones(generation_page), "ix_generations_first_seen_at_id"),
    "bodies to be pruned": (of_old_ones(body_page), "ix_deliveries_not_pruned"),
    "applied deliveries of a generation": (of_generation, "transitions"),
    "other deliveries of a generation": (of_generation, "ix_deliveries_generation_id"),
}


@pytest.mark.parametrize("what", READ_FROM)
async def test_each_is_read_from_its_index(database: Database, what: str) -> None:
    statement, index = READ_FROM[what]
    read_plan = await plan(database, statement(database.is_sqlite))
    assert index in read_plan, read_plan
    assert "Seq Scan" not in read_plan
    assert "SCAN generations\n" not in f"{read_plan}\n"
    assert "SCAN deliveries\n" not in f"{read_plan}\n"


async def test_what_is_rare_is_listed_whole(database: Database) -> None:
    queries = Queries(database)
    for chosen in (DeliveryFilter(outcome=Outcome.UNKNOWN_TYPE), DeliveryFilter(event_type="generation.archived")):
        page = await queries.deliveries(chosen, after=None, limit=50)
        assert [item.event_id for item in page.items] == [f"evt_{n}" for n in range(2507, 0, -500)]
    settled = await queries.generations(GenerationFilter(tracking=Tracking.SETTLED), after=None, limit=50)
    assert [item.id for item in settled.items] == [f"task_{n}" for n in range(ROWS - 1, ROWS - 101, -2)]
    following = await queries.generations(GenerationFilter(tracking=Tracking.SETTLED), after=settled.last, limit=10)
    assert [item.id for item in following.items] == [f"task_{n}" for n in range(ROWS - 101, ROWS - 121, -2)]


async def test_what_is_overdue_is_counted_as_far_as_it_matters(database: Database) -> None:
    later = NOON + timedelta(days=1)
    standing = await Queries(database).describe_status(later)
    assert (standing.open, standing.overdue) == (ROWS // 2, MOST_OVERDUE)
    look = await AlarmQuery(database, by_hand=False).at(later)
    assert (look.overdue, look.watched_since) == (MOST_OVERDUE, NOON)
    assert (await Queries(database).describe_status(NOON + timedelta(seconds=9))).overdue == 5


async def test_generations_are_found_by_the_beginning_of_their_ids(database: Database) -> None:
    queries = Queries(database)
    matching = await queries.search_generations("task_299", owner=None, limit=5)
    assert [item.id for item in matching] == [f"task_299{end}" for end in ("", "0", "1", "2", "3")]
    assert await queries.search_generations("task_299", owner="shop", limit=5) == []
    assert await queries.search_generations("asks", owner=None, limit=5) == []
