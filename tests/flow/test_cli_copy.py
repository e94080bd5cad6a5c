"""`rivya-receiver copy`: another database holds the same record afterwards, or nothing is written."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select, text

from app.core.clock import SystemClock
from app.core.database import Database, metadata
from app.core.leases import leases
from app.core.migrations import migrate_database
from app.ledger.tables import transitions, usage_hours
from app.operations.replicas import replicas
from tests.support.clock import NOON
from tests.support.commands import Ended, command
from tests.support.databases import Databases, PostgresDatabases, SqliteDatabases
from tests.support.filled_record import FILLED, fill

UNCOPIED = {leases.name, replicas.name}
EXACT = {
    "hour": NOON,
    "model": "exact",
    "generations": 1,
    "open": 1,
    "reserved_credits": Decimal("0.1"),
    "final_credits": Decimal("0.1"),
}
Rows = dict[str, list[dict[str, Any]]]


async def copy(source: str, target: str, directory: Path, *, words: str = "") -> Ended:
    return await command(f"copy --from {source} --to {target} {words}", {}, directory)


async def rows(url: str) -> Rows:
    database = Database(url)
    try:
        async with database.read() as connection:
            return {
                table.name: [
                    dict(row)
                    for row in (await connection.execute(select(table).order_by(*table.primary_key))).mappings()
                ]
                for table in metadata.sorted_tables
            }
    finally:
        await database.dispose()


async def execute(url: str, *statements: Any) -> None:
    database = Database(url)
    try:
        async with database.transaction() as connection:
            for statement in statements:
                await connection.execute(statement)
    finally:
        await database.dispose()


async def forget_newest(url: str) -> int:
    """The position in the feed of a transition that is removed; it is never to be used again."""
    newest = select(func.max(transitions.c.feed_position)).scalar_subquery()
    position = max(row["feed_position"] for row in (await rows(url))["transitions"])
    await execute(url, delete(transitions).where(transitions.c.feed_position == newest))
    return int(position)


async def add_transition(url: str) -> int:
    """The position of a new transition."""
    step = {"generation_id": "later", "number": 1, "to_status": "queued", "source": "poll"}
    await execute(url, insert(transitions).values({**step, "recorded_at": SystemClock().now()}))
    return max(int(row["feed_position"]) for row in (await rows(url))["transitions"])


@pytest.mark.parametrize("kinds", ["sqlite to postgresql", "postgresql to sqlite", "postgresql to postgresql"])
async def test_every_row_is_copied_and_no_number_is_used_again(
    sqlite_databases: SqliteDatabases, postgres_databases: PostgresDatabases, tmp_path: Path, kinds: str
) -> None:
    of_kind: dict[str, Databases] = {"sqlite": sqlite_databases, "postgresql": postgres_databases}
    first, _, second = kinds.split()
    source, target = await asyncio.to_thread(of_kind[first].migrated), await asyncio.to_thread(of_kind[second].empty)
    await fill(source)
    await execute(source, delete(replicas), insert(usage_hours).values(EXACT))
    forgotten = await forget_newest(source)
    before = await rows(source)
    copied = await copy(source, target, tmp_path, words="--json")
    assert copied.status == 0, copied.errors
    counts = json.loads(copied.output)["tables"]
    assert counts == {name: len(stored) for name, stored in before.items() if name not in UNCOPIED}
    assert {name for name, count in counts.items() if count} >= FILLED - UNCOPIED
    after = await rows(target)
    assert {**after, **dict.fromkeys(UNCOPIED)} == {**before, **dict.fromkeys(UNCOPIED)}
    assert await add_transition(target) == forgotten + 1
    if second == "postgresql":
        database = Database(target)
        async with database.read() as connection:
            stored = await connection.scalar(
                text("SELECT reserved_credits::text FROM usage_hours WHERE model = 'exact'")
            )
        await database.dispose()
        assert stored == "0.1", "sums are exact numbers"


async def test_a_target_that_holds_anything_is_refused_and_left_as_it_is(
    sqlite_url: str, postgres_url: str, tmp_path: Path
) -> None:
    await fill(sqlite_url)
    await add_transition(postgres_url)
    before = await rows(postgres_url)
    refused = await copy(sqlite_url, postgres_url, tmp_path)
    assert (refused.status, refused.output) == (1, "")
    assert refused.errors.startswith("nothing was copied: --to: is not empty: transitions holds rows")
    assert await rows(postgres_url) == before


async def test_a_source_that_a_receiver_uses_is_refused(sqlite_url: str, postgres_url: str, tmp_path: Path) -> None:
    serving = Database(sqlite_url)
    serving.lock()
    alive = {"id": "one", "version": "1", "started_at": SystemClock().now(), "seen_at": SystemClock().now()}
    await execute(postgres_url, insert(replicas).values(alive))
    of_sqlite = await copy(sqlite_url, postgres_url, tmp_path)
    of_postgres = await copy(postgres_url, f"sqlite:///{tmp_path}/new.db", tmp_path)
    await serving.dispose()
    assert (of_sqlite.status, of_postgres.status) == (1, 1)
    assert "is used by another receiver" in of_sqlite.errors
    assert "1 receivers use it: stop them" in of_postgres.errors


async def test_it_says_in_one_line_why_it_can_not(sqlite_url: str, tmp_path: Path) -> None:
    older = Database(f"sqlite+aiosqlite:///{tmp_path}/older.db")
    await migrate_database(older)
    await migrate_database(older, down_to="0001")
    await older.dispose()
    absent, same, old, wrong, away = [
        await copy(source, target, tmp_path)
        for source, target in (
            (f"sqlite:///{tmp_path}/absent.db", sqlite_url),
            (sqlite_url, sqlite_url),
            (f"sqlite:///{tmp_path}/older.db", sqlite_url),
            ("mysql://somewhere/receiver", sqlite_url),
            (sqlite_url, "postgresql://me:hidden@127.0.0.1:1/receiver"),
        )
    ]
    assert [each.status for each in (absent, same, old, wrong, away)] == [1, 1, 1, 2, 1]
    assert "does not exist" in absent.errors
    assert "are the same database" in same.errors
    assert "run `rivya-receiver migrate` on it" in old.errors
    assert wrong.errors.startswith("--from: ")
    assert "can't be used" in away.errors
    assert "hidden" not in away.errors
    assert all(len(each.errors.splitlines()) == 1 for each in (absent, same, old, wrong, away))
