"""Migrates the database to the schema of this code, one process at a time."""

from collections.abc import Collection
from io import StringIO
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

import migrations
from app.core.database import Database
from app.core.database_url import normal_url

# An arbitrary number that nobody else uses: the first 8 bytes of SHA-256("rivya-receiver migrations"), signed.
LOCK = 3111748936867286410

VERSION_TABLE = "receiver_alembic_version"
"""Not Alembic's usual name: another program in the same database may have that one."""

NO_RIGHTS_HELP = (
    "the role of DATABASE_URL lacks a right; GRANT it CREATE and USAGE on its schema, and all on our tables there, or "
    "run `rivya-receiver migrate` as a role that has them"
)

log = structlog.stdlib.get_logger(__name__)


def alembic_config() -> Config:
    """Alembic's configuration, with the path of the installed migrations."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config


class TableTaken(Exception):
    """The database holds a table of another program, or of release 0.1, with the name of one of ours."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__(
            f"the database already has {', '.join(sorted(names))}, which this release did not make: another program's, "
            "or those of release 0.1, which is not migrated. Give the receiver a database or a schema of its own"
        )


def head() -> str | None:
    """The revision that this code is written for."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def known() -> frozenset[str]:
    """All revisions that this code has; a database at any other was migrated by a later release."""
    scripts = ScriptDirectory.from_config(alembic_config())
    return frozenset(script.revision for script in scripts.walk_revisions())


async def migrate(url: str) -> None:
    """Migrate the database at `url` to `head()`; see `migrate_database`."""
    database = Database(normal_url(url))
    try:
        await migrate_database(database)
    finally:
        await database.dispose()


async def migrate_database(database: Database, *, down_to: str | None = None) -> None:
    """Migrate `database` to `head()` in one transaction, under a lock: one process migrates, the others wait.

    `down_to` names an earlier revision ("base": none) to go back to. A database that a later release has migrated is
    left as it is: this code runs on it while the upgrade lasts.

    Raises `DatabaseUnavailable`, `TableTaken` before the first migration, and alembic's `CommandError` for a revision
    that isn't known.
    """
    async with database.transaction() as connection:
        await connection.run_sync(_migrate, down_to)


def migration_sql(dialect: str, *, since: str | None) -> str:
    """The statements that migrate a database of this dialect from revision `since` (None: an empty one) to `head()`.

    Raises alembic's `CommandError` for a revision that isn't known.
    """
    config, written = alembic_config(), StringIO()
    config.output_buffer = written
    config.attributes["dialect"] = dialect
    command.upgrade(config, f"{since or 'base'}:head", sql=True)
    return written.getvalue()


async def may_migrate(database: Database) -> bool:
    """Whether we have the right to make tables. Raises `DatabaseUnavailable`."""
    if database.is_sqlite:
        return True
    async with database.read() as connection:
        return bool(await connection.scalar(text("SELECT has_schema_privilege(current_schema(), 'CREATE')")))


async def current(database: Database) -> str | None:
    """The revision of the database, None before the first migration.

    Raises `DatabaseUnavailable`, and `TableTaken` before the first migration.
    """
    async with database.read() as connection:
        return await connection.run_sync(_current)


def _current(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    revision = context.get_current_revision()
    if revision is None and (taken := migrations.FIRST_TABLES & set(inspect(connection).get_table_names())):
        raise TableTaken(taken)
    return revision


def _migrate(connection: Connection, down_to: str | None) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    revision = _current(connection)
    if down_to is None and revision is not None and revision not in known():
        log.warning("migrations.later", revision=revision, head=head())
        return
    # On SQLite the transaction itself is the lock (BEGIN IMMEDIATE).
    config = alembic_config()
    config.attributes["connection"] = connection
    if down_to is None:
        command.upgrade(config, "head")
    else:
        command.downgrade(config, down_to)
