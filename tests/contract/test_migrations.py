"""Migrations work on both databases, up and down, by many processes at once, and say what the code says."""

import asyncio

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

import app.core.audit
import app.core.leases
import app.endpoint.repository
import app.intake.rejections
import app.ledger.tables
import app.operations.replicas
import app.ratelimit.limiter
import app.submission.store
import app.tokens.spending  # noqa: F401 - each import adds its tables to the metadata
import migrations
from app.core import alembic_commands
from app.core.database import Database, metadata
from app.core.migrations import VERSION_TABLE, TableTaken, current, head, known, migrate, migrate_database
from tests.support.api_harness import open_api


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
        assert await connection.run_sync(_tables) == {VERSION_TABLE}
    await migrate_database(database)
    async with database.read() as connection:
        assert await connection.run_sync(_tables) == {VERSION_TABLE, *metadata.tables}
    await database.dispose()


async def test_the_migrations_build_what_the_code_declares(database_url: str) -> None:
    database = Database(database_url)
    async with database.read() as connection:
        assert await connection.run_sync(_differences) == []
    await database.dispose()


FOREIGN = "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL)"


async def test_another_programs_version_table_is_neither_read_nor_written(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    async with database.transaction() as connection:
        await connection.execute(text(FOREIGN))
        await connection.execute(text("INSERT INTO alembic_version VALUES ('0006')"))
    await migrate_database(database)
    assert await current(database) == head()
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all() == ["0006"]
    await database.dispose()


async def test_a_table_of_others_with_a_name_of_ours_is_named_and_nothing_is_changed(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    async with database.transaction() as connection:
        await connection.execute(text("CREATE TABLE generations (born integer)"))
        await connection.execute(text("CREATE TABLE users (id integer)"))
    with pytest.raises(TableTaken, match="already has generations, "):
        await migrate_database(database)
    async with open_api(empty_database_url) as api:
        answer = await api.admin.get("/readyz")
        checks = {check["name"]: check for check in answer.json()["checks"]}
        assert (answer.status_code, checks["database"]["ok"], checks["migrations"]["ok"]) == (503, True, False)
        assert "already has generations, " in checks["migrations"]["detail"]
    async with database.read() as connection:
        assert await connection.run_sync(_tables) == {"generations", "users"}
    await database.dispose()


def test_the_names_of_the_files_say_what_alembic_reads_in_them() -> None:
    scripts = ScriptDirectory.from_config(alembic_commands.config())
    assert head() == scripts.get_current_head()
    assert known() == {script.revision for script in scripts.walk_revisions()}


def test_the_first_migration_makes_the_tables_that_it_says() -> None:
    assert metadata.tables.keys() >= migrations.FIRST_TABLES


def _down(connection: Connection) -> None:
    config = alembic_commands.config()
    config.attributes["connection"] = connection
    command.downgrade(config, "base")


def _tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": False, "version_table": VERSION_TABLE})
    return list(compare_metadata(context, metadata))
