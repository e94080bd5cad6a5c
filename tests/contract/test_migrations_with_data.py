"""Every migration goes down and up with data in place, waits for no lock without end, and rewrites no big table."""

from typing import Any

import pytest
from alembic import command
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, MetaData, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core import alembic_commands
from app.core.database import Database
from app.core.errors import DatabaseUnavailable
from app.core.migrations import VERSION_TABLE, current, head, migrate_database
from tests.support.filled_record import FILLED, fill

BIG = ("deliveries", "generations", "polls", "transitions", "submissions")
TRANSLATED = {("endpoints", "state")}
"""Going down, a word that the schema before does not have becomes the nearest that it has."""
Contents = dict[str, list[dict[str, Any]]]


def steps() -> list[Script]:
    """Every migration but the first, newest first."""
    scripts = ScriptDirectory.from_config(alembic_commands.config())
    return [script for script in scripts.walk_revisions() if script.down_revision is not None]


async def contents(database: Database) -> Contents:
    """Every table, row by row."""
    async with database.read() as connection:
        return await connection.run_sync(_contents)


def _contents(connection: Connection) -> Contents:
    metadata = MetaData()
    metadata.reflect(connection)
    tables = [table for table in metadata.sorted_tables if table.name != VERSION_TABLE]
    return {
        table.name: [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]
        for table in tables
    }


def shared(these: Contents, others: Contents) -> Contents:
    """The rows of `these`, as far as both have their tables and columns."""
    return {
        name: [
            {key: value for key, value in row.items() if key in others[name][0] and (name, key) not in TRANSLATED}
            for row in rows
        ]
        for name, rows in these.items()
        if others.get(name)
    }


async def go(database: Database, *, to: str) -> None:
    async with database.transaction() as connection:
        await connection.run_sync(_go, to)


def _go(connection: Connection, to: str) -> None:
    config = alembic_commands.config()
    config.attributes["connection"] = connection
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    at = connection.execute(text("SELECT version_num FROM receiver_alembic_version")).scalar_one()
    (command.upgrade if known.index(to) < known.index(at) else command.downgrade)(config, to)


async def test_every_migration_goes_down_and_up_and_loses_nothing_that_both_schemas_have(database_url: str) -> None:
    await fill(database_url)
    database = Database(database_url)
    filled = await contents(database)
    assert {name for name, rows in filled.items() if rows} >= FILLED
    for script in steps():
        before = await contents(database)
        await go(database, to=str(script.down_revision))
        down = await contents(database)
        assert shared(down, before) == shared(before, down), script.revision
        await go(database, to=script.revision)
        up = await contents(database)
        assert shared(up, down) == shared(down, up), script.revision
        await go(database, to=str(script.down_revision))
    await migrate_database(database)
    assert await current(database) == head()
    await database.dispose()


async def test_no_migration_rewrites_a_big_table_unless_it_says_so(postgres_url: str) -> None:
    await fill(postgres_url)
    database = Database(postgres_url)
    for script in steps():
        await go(database, to=str(script.down_revision))
    for script in reversed(steps()):
        async with database.read() as connection:
            before = await files(connection)
        await go(database, to=script.revision)
        async with database.read() as connection:
            after = await files(connection)
        rewritten = {name for name in BIG if name in before and before[name] != after.get(name)}
        noted = {name for name in rewritten if f"rewrites {name}" in (script.module.__doc__ or "")}
        assert rewritten == noted, script.revision
    await database.dispose()


async def test_migrations_for_which_nobody_waits_run_while_others_write(postgres_url: str) -> None:
    database = Database(postgres_url)
    for script in steps():
        await go(database, to=str(script.down_revision))
        if "nobody waits" not in (script.module.__doc__ or ""):
            continue
        async with database.read() as writer:
            for name in BIG:
                await writer.execute(text(f"LOCK TABLE {name} IN ROW EXCLUSIVE MODE"))
            await go(database, to=script.revision)
        await go(database, to=str(script.down_revision))
    await database.dispose()


async def files(connection: AsyncConnection) -> dict[str, int]:
    """In which file PostgreSQL keeps each table: another one after a rewrite."""
    rows = await connection.execute(text("SELECT relname, relfilenode FROM pg_class WHERE relkind = 'r'"))
    return {row.relname: row.relfilenode for row in rows}


async def test_a_migration_that_can_not_have_its_lock_gives_up_and_changes_nothing(postgres_url: str) -> None:
    database = Database(postgres_url)
    for script in steps():
        await go(database, to=str(script.down_revision))
        if "new tables only" in (script.module.__doc__ or "") or "nobody waits" in (script.module.__doc__ or ""):
            continue
        async with database.read() as reader:
            for name in BIG:
                await reader.execute(text(f"LOCK TABLE {name} IN ROW EXCLUSIVE MODE"))
            with pytest.raises(DatabaseUnavailable):
                await migrate_database(database)
            assert await current(database) == script.down_revision
    await migrate_database(database)
    assert await current(database) == head()
    await database.dispose()
