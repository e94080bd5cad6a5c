"""Transactions commit before they return, and what is the database's state is told from what is our fault."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.core.database import Database
from app.core.errors import DatabaseUnavailable


async def test_a_transaction_is_committed_when_its_block_ends(empty_database_url: str) -> None:
    one, other = Database(empty_database_url), Database(empty_database_url)
    async with one.transaction() as connection:
        await connection.execute(text("CREATE TABLE things (name TEXT)"))
        await connection.execute(text("INSERT INTO things VALUES ('one')"))
    async with other.read() as connection:
        assert (await connection.execute(text("SELECT name FROM things"))).scalars().all() == ["one"]
    await one.dispose()
    await other.dispose()


async def test_a_block_that_raises_leaves_nothing_behind(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    with pytest.raises(ZeroDivisionError):
        await _create_and_fail(database)
    async with database.transaction() as connection:
        await connection.execute(text("CREATE TABLE things (name TEXT)"))  # would fail if it were there
    await database.dispose()


async def test_a_table_that_nobody_has_made_yet_is_a_database_that_is_not_ready(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    with pytest.raises(DatabaseUnavailable):
        async with database.read() as connection:
            await connection.execute(text("SELECT * FROM generations"))
    await database.dispose()


async def _create_and_fail(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("CREATE TABLE things (name TEXT)"))
        raise ZeroDivisionError


async def test_a_connection_in_use_during_the_end_is_closed_when_it_is_given_back(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    async with database.read() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await database.dispose()
        assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
    if database.is_sqlite:
        with pytest.raises(ValueError, match="no active connection"):
            driver.in_transaction  # noqa: B018 - a property that raises
    else:
        assert driver.is_closed()


async def test_writers_wait_for_each_other_instead_of_failing(empty_database_url: str) -> None:
    one, other = Database(empty_database_url), Database(empty_database_url)
    async with one.transaction() as connection:
        await connection.execute(text("CREATE TABLE counted (number INTEGER)"))
        await connection.execute(text("INSERT INTO counted VALUES (0)"))

    async def add(database: Database) -> None:
        async with database.transaction() as connection:
            await connection.execute(text("UPDATE counted SET number = number + 1"))

    await asyncio.gather(*(add(database) for database in (one, other) for _ in range(20)))
    async with one.read() as connection:
        assert (await connection.execute(text("SELECT number FROM counted"))).scalar_one() == 40
    await one.dispose()
    await other.dispose()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    database = Database("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    for attempt in (database.ping(), _look(database), _write(database)):
        with pytest.raises(DatabaseUnavailable):
            await attempt
    await database.dispose()


async def _look(database: Database) -> None:
    async with database.read() as connection:
        await connection.execute(text("SELECT 1"))


async def _write(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("SELECT 1"))


async def test_a_statement_that_takes_too_long_is_named_as_such(empty_postgres_url: str) -> None:
    database = Database(empty_postgres_url)
    with pytest.raises(DatabaseUnavailable) as failed:
        await _execute(
            database, "SET LOCAL statement_timeout = 20", "SELECT count(*) FROM generate_series(1, 1000000000)"
        )
    assert failed.value.reason == "57014 QueryCanceledError: canceling statement due to statement timeout"
    await database.dispose()


async def test_a_connection_just_opened_is_used_although_others_break_meanwhile(empty_postgres_url: str) -> None:
    database = Database(empty_postgres_url)
    checks = database.direct.checks  # type: ignore[union-attr] # PostgreSQL's
    event.listen(database.engine.sync_engine, "connect", lambda *_: checks.drop_all())
    for _ in range(2):
        await _look(database)
    await database.dispose()


async def test_a_value_that_a_column_does_not_take_is_no_state_of_the_database(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    with pytest.raises(IntegrityError):
        await _execute(
            database, "CREATE TABLE things (number INTEGER CHECK (number < 3))", "INSERT INTO things VALUES (3)"
        )
    await database.dispose()


async def _execute(database: Database, *statements: str) -> None:
    async with database.transaction() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def test_errors_show_no_parameters(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    async with database.transaction() as connection:
        await connection.execute(text("CREATE TABLE kept (secret TEXT PRIMARY KEY)"))
        await connection.execute(text("INSERT INTO kept VALUES (:secret)"), {"secret": "whsec_hidden"})
    with pytest.raises(DBAPIError) as failed:
        async with database.transaction() as connection:
            await connection.execute(text("INSERT INTO kept VALUES (:secret)"), {"secret": "whsec_hidden"})
    assert "whsec_hidden" not in str(failed.value)
    await database.dispose()


async def test_only_our_user_can_read_what_sqlite_writes(tmp_path: Path) -> None:
    for name in ("new", "old"):
        file = tmp_path / name
        if name == "old":
            file.touch(0o644)
        database = Database(f"sqlite+aiosqlite:///{file}")
        database.lock()
        async with database.transaction() as connection:
            await connection.execute(text("CREATE TABLE things (name TEXT)"))
        files = [tmp_path / f"{name}{end}" for end in ("", "-wal", "-shm", ".lock")]
        assert [oct(each.stat().st_mode & 0o777) for each in files] == ["0o600"] * 4
        await database.dispose()
