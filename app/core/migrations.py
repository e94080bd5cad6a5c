"""Migrates the database to the schema of this code, one process at a time.

Alembic does it, and only that imports Alembic: it takes 10 MiB, which a process on a migrated database does not need.
"""

import asyncio
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Final

import structlog
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

_VERSIONS: Final = Path(migrations.__file__).with_name("versions")
_REVISION: Final = text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a constant

log = structlog.stdlib.get_logger(__name__)


class TableTaken(Exception):
    """The database holds a table of another program, or of release 0.1, with the name of one of ours."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__(
            f"the database already has {', '.join(sorted(names))}, which this release did not make: another program's, "
            "or those of release 0.1, which is not migrated. Give the receiver a database or a schema of its own"
        )


def head() -> str:
    """The revision that this code is written for."""
    return max(known())


def known() -> frozenset[str]:
    """All revisions that this code has; a database at any other was migrated by a later release."""
    return frozenset(path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9]*_*.py"))


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
        revision = await connection.run_sync(_lock)
        if down_to is None and revision == head():
            return
        if down_to is None and revision is not None and revision not in known():
            log.warning("migrations.later", revision=revision, head=head())
            return
        alembic = await asyncio.to_thread(_alembic_commands)
        await connection.run_sync(alembic.migrate, down_to)


def migration_sql(dialect: str, *, since: str | None) -> str:
    """The statements that migrate a database of this dialect from revision `since` (None: an empty one) to `head()`.

    Raises alembic's `CommandError` for a revision that isn't known.
    """
    statements: str = _alembic_commands().sql(dialect, since)
    return statements


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
    inspector = inspect(connection)
    revision = connection.scalar(_REVISION) if inspector.has_table(VERSION_TABLE) else None
    if revision is None and (taken := migrations.FIRST_TABLES & set(inspector.get_table_names())):
        raise TableTaken(taken)
    return revision


def _lock(connection: Connection) -> str | None:
    """Wait until no other process migrates, then return the revision; on SQLite the transaction is the lock."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    return _current(connection)


def _alembic_commands() -> ModuleType:
    from app.core import alembic_commands  # noqa: PLC0415 - see above

    return alembic_commands
