"""Deliveries and transitions by month: applied and undone while the service records, and no event is taken twice."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import inspect, text

from app.core.database import Database
from app.core.errors import DatabaseUnavailable
from app.core.migrations import current, head, migrate, migrate_database
from app.ledger.tables import deliveries, generations, transitions
from app.operating.keeping import KEYS_KEPT
from migrations.partitioning.__main__ import run
from migrations.partitioning.commands import Refused
from tests.clock import NOON
from tests.contract.test_migrations_with_data import contents, fill, go, steps
from tests.ledger import LedgerRoom, open_ledger
from tests.reports import poll, submit, webhook

LATER = datetime.now(UTC) + timedelta(days=150)  # beyond the months that `apply` makes


async def where(room: LedgerRoom, table: str) -> list[str]:
    """In which partitions the rows are."""
    async with room.database.read() as connection:
        named = text(f"SELECT tableoid::regclass::text AS name FROM {table} ORDER BY 1")  # noqa: S608 - a table of ours
        found = await connection.execute(named)
        return list(found.scalars())


async def rows(database: Database) -> dict[str, list[str]]:
    """Every table's, in no order: a partitioned table has no primary key to go by."""
    return {name: sorted(map(repr, found)) for name, found in (await contents(database)).items()}


async def record_until(done: asyncio.Event, room: LedgerRoom, name: str) -> list[str]:
    """Generations of which two deliveries each were recorded, twice, as fast as it goes."""
    recorded: list[str] = []
    while not done.is_set():
        it = f"{name}{len(recorded)}"
        both = [webhook(it, "processing"), webhook(it, "succeeded")]
        await room.ledger.record(both)
        assert [again.is_duplicate for again in await room.ledger.record(both)] == [True, True]
        recorded.append(it)
    return recorded


async def test_it_is_applied_and_undone_under_the_feet_of_replicas_that_record(postgres_url: str) -> None:
    done = asyncio.Event()
    async with open_ledger(postgres_url) as one, open_ledger(postgres_url) as other:
        await one.ledger.record([webhook("before", "succeeded")])
        recording = [asyncio.create_task(record_until(done, room, name)) for room, name in ((one, "a"), (other, "b"))]
        for words in (["apply"], ["undo"], ["apply"]):
            await run(postgres_url, words)
        done.set()
        recorded = {"before"}.union(*await asyncio.gather(*recording))
        assert [it.is_duplicate for it in await one.ledger.record([webhook("before", "succeeded")])] == [True]
        attempts = {row["event_id"]: row["attempts"] for row in await one.rows(deliveries)}
        statuses = [(row["generation_id"], row["to_status"]) for row in await one.rows(transitions)]
        assert {row["id"] for row in await one.rows(generations)} == recorded
    told = [(name, status) for name in recorded - {"before"} for status in ("processing", "succeeded")]
    told.append(("before", "succeeded"))
    assert attempts == {f"evt_{name}_{status}": 2 for name, status in told}
    assert sorted(statuses) == sorted(told)


async def test_an_event_that_comes_again_months_later_is_known_and_counted_where_it_is(postgres_url: str) -> None:
    await run(postgres_url, ["apply"])
    async with open_ledger(postgres_url) as room:
        await room.ledger.record([webhook("g", "processing")])
        await room.ledger.record([webhook("g", "succeeded", at=LATER), webhook("g", "processing", at=LATER)])
        assert await where(room, "deliveries") == ["deliveries_default", "deliveries_first"]
        assert [row["attempts"] for row in await room.rows(deliveries)] == [2, 1]
        assert [row["number"] for row in await room.rows(transitions)] == [1, 2]


async def test_one_event_that_races_itself_over_replicas_is_one_delivery_in_one_month(postgres_url: str) -> None:
    await run(postgres_url, ["apply"])
    async with open_ledger(postgres_url) as one, open_ledger(postgres_url) as other:
        times = [NOON, LATER] * 10
        await asyncio.gather(
            *((one, other)[n % 2].ledger.record([webhook("g", "failed", at=at)]) for n, at in enumerate(times))
        )
        assert [row["attempts"] for row in await one.rows(deliveries)] == [20]
        assert len(await one.rows(transitions)) == 1


async def test_going_back_leaves_the_schema_and_the_rows_as_they_were(postgres_url: str) -> None:
    await fill(postgres_url)
    database = Database(postgres_url)
    before, schema = await rows(database), await _schema(database)
    await run(postgres_url, ["apply"])
    between = await rows(database)
    assert {name: between[name] for name in before} == before
    await run(postgres_url, ["undo"])
    after = await rows(database)
    assert (after.pop("alembic_version_partitioning"), after) == ([], before)
    assert await _schema(database) == schema
    await database.dispose()


async def test_ordinary_migrations_go_down_and_up_on_partitioned_tables(postgres_url: str) -> None:
    await fill(postgres_url)
    await run(postgres_url, ["apply"])
    database = Database(postgres_url)
    before = await _schema(database)
    await go(database, to=str(steps()[0].down_revision))
    await migrate_database(database)
    assert await current(database) == head()
    assert await _schema(database) == before
    await database.dispose()


async def test_what_no_month_was_made_for_is_kept_and_moved_when_it_is_made(postgres_url: str) -> None:
    await run(postgres_url, ["apply"])
    async with open_ledger(postgres_url) as room:
        await room.ledger.record([webhook("g", "succeeded", at=LATER)])
        assert await where(room, "deliveries") == ["deliveries_default"]
        made = await run(postgres_url, ["ahead", "6"])
        month = f"{LATER:%Y_%m}"
        assert {f"made deliveries_{month}", f"made transitions_{month}"} <= set(made)
        assert await where(room, "deliveries") == [f"deliveries_{month}"]
        assert await where(room, "transitions") == [f"transitions_{month}"]
        assert [it.is_duplicate for it in await room.ledger.record([webhook("g", "succeeded")])] == [True]
        assert await run(postgres_url, ["ahead", "6"]) == []


async def test_a_month_is_dropped_once_all_of_it_was_settled_and_its_events_stay_known(postgres_url: str) -> None:
    await run(postgres_url, ["apply"])
    async with open_ledger(postgres_url) as room:
        await room.ledger.record([webhook("done", "succeeded"), submit("open")])
        dropped = await _dropped(postgres_url)
        assert ("dropped deliveries_first" in dropped, "dropped transitions_first" in dropped) == (True, False)
        await room.ledger.record([poll("open", "failed", at=NOON + timedelta(days=1))])
        assert "dropped transitions_first" in await _dropped(postgres_url)
        again = await room.ledger.record([webhook("done", "succeeded", at=LATER)])
        assert (again[0].is_duplicate, await room.rows(deliveries)) == (True, [])
        async with room.database.transaction() as connection:
            earlier = text("UPDATE dropped_partitions SET dropped_at = dropped_at - CAST(:by AS interval)")
            await connection.execute(earlier, {"by": KEYS_KEPT + timedelta(seconds=1)})
        assert await _dropped(postgres_url) == ["forgot 1 events"]


async def _dropped(url: str) -> list[str]:
    return await run(url, ["drop", f"{LATER:%Y-%m-%d}"])


async def test_a_step_that_can_not_have_its_lock_gives_up_and_the_next_attempt_goes_on(postgres_url: str) -> None:
    async with open_ledger(postgres_url) as room:
        async with room.database.read() as reader:
            await reader.execute(text("LOCK TABLE deliveries IN ACCESS SHARE MODE"))
            with pytest.raises(Exception, match="lock timeout"):
                await run(postgres_url, ["apply"])
        await room.ledger.record([webhook("meanwhile", "succeeded")])
        await run(postgres_url, ["apply"])
        again = await room.ledger.record([webhook("meanwhile", "succeeded"), webhook("after", "failed")])
        assert [it.is_duplicate for it in again] == [True, False]


async def test_a_database_that_nobody_migrated_is_unavailable_not_partitioned(empty_postgres_url: str) -> None:
    async with open_ledger(empty_postgres_url) as room:
        with pytest.raises(DatabaseUnavailable):
            await room.ledger.record([webhook("g", "succeeded")])
        await migrate(empty_postgres_url)
        await room.ledger.record([webhook("g", "succeeded")])


@pytest.mark.parametrize("words", [[], ["apply", "now"], ["ahead", "-1"], ["drop"], ["drop", "January"]])
async def test_words_that_mean_nothing_are_refused(words: Sequence[str]) -> None:
    with pytest.raises(Refused):
        await run("postgresql://nowhere", list(words))


@pytest.mark.parametrize("url", ["", "sqlite+aiosqlite:///some.db", "postgresql+pigeon://here"])
async def test_only_postgresql_is_partitioned(url: str) -> None:
    with pytest.raises(Refused, match="DATABASE_URL"):
        await run(url, ["apply"])


async def _schema(database: Database) -> dict[str, Any]:
    """Columns, indexes and constraints of the record's tables, by their names."""

    def look(connection: Any) -> dict[str, Any]:
        found = inspect(connection)
        return {
            table.name: (
                [(column["name"], str(column["type"]), column["default"]) for column in found.get_columns(table.name)],
                sorted(it["name"] for it in found.get_indexes(table.name)),
                sorted(str(it["name"]) for it in found.get_unique_constraints(table.name)),
                sorted(str(it["name"]) for it in found.get_check_constraints(table.name)),
                found.get_pk_constraint(table.name)["name"],
                [it["name"] for it in found.get_foreign_keys(table.name)],
            )
            for table in (deliveries, generations, transitions)
        }

    async with database.read() as connection:
        return await connection.run_sync(look)
