"""Migrations work on both databases, up and down, by many processes at once, and say what the code says."""

import asyncio

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

import app.core.leases
import app.endpoint.tables
import app.intake.rejections
import app.ledger.tables
import app.ratelimit.store
import app.submission.store  # noqa: F401 - each import adds its tables to the metadata
from app.core.database import Database, metadata
from app.core.migrations import alembic_config, current, head, migrate, migrate_database


async def test_many_processes_that_start_together_migrate_once(empty_database_url: str) -> None:
    await asyncio.gather(*(migrate(empty_database_url) for _ in range(5)))
    database = Database(empty_database_url)
    assert await current(database) == head()
    await database.dispose()


async def test_migrating_what_is_migrated_changes_nothing(database_url: str) -> None:
    database = Database(database_url)
    before = await current(database)
    await migrate_database(database)
    assert await current(database) == before == head()
    await database.dispose()


async def test_every_migration_goes_down_and_up_again(database_url: str) -> None:
    database = Database(database_url)
    async with database.transaction() as connection:
        await connection.run_sync(_down)
        assert await connection.run_sync(_tables) == {"alembic_version"}
    await migrate_database(database)
    async with database.read() as connection:
        assert await connection.run_sync(_tables) == {"alembic_version", *metadata.tables}
    await database.dispose()


async def test_the_migrations_build_what_the_code_declares(database_url: str) -> None:
    database = Database(database_url)
    async with database.read() as connection:
        assert await connection.run_sync(_differences) == []
    await database.dispose()


def _down(connection: Connection) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.downgrade(config, "base")


def _tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": False})
    return list(compare_metadata(context, metadata))
