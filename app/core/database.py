"""The database, PostgreSQL or SQLite, with write transactions that commit before they return."""

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.core.database_url import PostgresOptions, postgres_options
from app.core.drivers import DIRECT_SETTINGS, ConnectionChecks, RawPostgres, connect, translate_errors
from app.core.errors import DatabaseUnavailable
from app.core.sqlite import RawSqlite, configure_sqlite, make_private

log = structlog.stdlib.get_logger(__name__)

_WRITES = "receiver_writes"

# plan_cache_mode: a generic plan made while a table was empty scans it from then on; planning again costs far less.
# jit, parallel workers: a plan that is forced away from sorting or scanning counts as dear, and compiling it takes half
# a second, starting workers for a page of a list longer than reading it.
_POSTGRES_SETTINGS = {
    "application_name": "rivya-receiver",
    "plan_cache_mode": "force_custom_plan",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "lock_timeout": "5s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
    "timezone": "UTC",
}
_CONNECTIONS, _CALLER_CONNECTIONS = 7, 3
_CALLER_SETTINGS = {**_POSTGRES_SETTINGS, "statement_timeout": "3s"}


_STATEMENTS_CACHED = 100
"""Prepared statements of a connection; SQLAlchemy's default."""


class DatabaseInUse(Exception):
    """Another process serves on this SQLite file; the text says which, and what to do."""


class Database:
    """The engines for the life of a process: `transaction()` to write, `read()` and `read_for_caller()` to read."""

    def __init__(self, url: str) -> None:
        self.is_sqlite = not url.startswith("postgres")
        self.insert = sqlite.insert if self.is_sqlite else postgresql.insert
        """Constructs an INSERT that can have ON CONFLICT."""
        self._lock_file: int | None = None
        # SQLite has one writer: waiting for this lock is fair and costs nothing, waiting inside SQLite is a busy loop.
        self._writer = asyncio.Lock() if self.is_sqlite else None
        self.direct: RawPostgres | RawSqlite
        if self._writer is not None:
            self.url = sa.make_url(url)
            self.engine = self.caller_engine = _sqlite_engine(url)
            self.direct = RawSqlite(str(self.url.database), writer=self._writer)
        else:
            options = postgres_options(url)
            self.url = _shown(options)
            checks = ConnectionChecks()
            self.engine = _postgres_engine(self.url, options, _CONNECTIONS, checks, _POSTGRES_SETTINGS)
            self.caller_engine = _postgres_engine(self.url, options, _CALLER_CONNECTIONS, checks, _CALLER_SETTINGS)
            self.direct = RawPostgres(
                partial(connect, options, {**_POSTGRES_SETTINGS, **DIRECT_SETTINGS}),
                checks,
                has_transaction_pooler=options.has_transaction_pooler,
            )
        """The driver without SQLAlchemy, for the statements that run for every delivery."""
        self._disposed = False
        for engine in {self.engine, self.caller_engine}:
            sa.event.listen(engine.sync_engine, "checkin", self._close_if_disposed)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a write transaction, committed when the block ends, rolled back when it raises.

        Raises `DatabaseUnavailable` for every database error that a value of the statement did not cause.
        """
        async with AsyncExitStack() as stack:
            if self._writer is not None:
                await stack.enter_async_context(self._writer)
            stack.enter_context(translate_errors())
            connection = await stack.enter_async_context(self.engine.connect())
            connection = await connection.execution_options(**{_WRITES: True})
            async with connection.begin():
                yield connection

    def read(self, *, plan: sa.TextClause | None = None) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection in a read transaction. Raises `DatabaseUnavailable` like `transaction`.

        `plan`: settings of PostgreSQL's planner, of `app.core.pagination`, that are set first; SQLite has none.
        """
        return self._read(self.engine, plan)

    def read_for_caller(self, *, plan: sa.TextClause | None = None) -> AbstractAsyncContextManager[AsyncConnection]:
        """As `read`, over connections of their own and 3 s at most: callers take none from health and recording."""
        return self._read(self.caller_engine, plan)

    @asynccontextmanager
    async def _read(self, engine: AsyncEngine, plan: sa.TextClause | None) -> AsyncIterator[AsyncConnection]:
        with translate_errors():
            async with engine.connect() as connection, connection.begin():
                if plan is not None and not self.is_sqlite:
                    await connection.execute(plan)
                yield connection

    @property
    def exists(self) -> bool:
        """False if this is a SQLite file that is not there yet; connecting would create it."""
        return not self.is_sqlite or Path(str(self.url.database)).exists()

    def lock(self) -> None:
        """Lock a SQLite file for this process, until `dispose` or the end of the process, however it ends.

        The lock is on a file beside it: SQLite loses its own locks when the process closes another handle of its file.

        Raises `DatabaseInUse`.
        """
        if not self.is_sqlite or self._lock_file is not None:
            return
        path = Path(f"{Path(str(self.url.database)).resolve()}.lock")
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            return  # the database can't be used either, and `obstacle` says why
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            holder = path.read_text(errors="replace")
            raise DatabaseInUse(
                f"DATABASE_URL: {path.with_suffix('')} is used by another receiver ({holder}), and SQLite is for one: "
                "stop that one, or use PostgreSQL; --force starts this one all the same"
            ) from None
        except OSError as error:
            log.warning("database.not_locked", path=str(path), reason=error.strerror)
        os.truncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
        self._lock_file = file

    def obstacle(self) -> str | None:
        """The reason why this process can't use a SQLite file, with the path and the user id. None if nothing does."""
        if not self.is_sqlite:
            return None
        # Never open the file here: closing it again would release the locks that SQLite holds on it in this process.
        path = Path(str(self.url.database)).absolute()
        try:
            path.parent.stat()
        except OSError as error:
            return f"{path.parent}: {error.strerror} (for user id {os.geteuid()})"
        if not path.parent.is_dir():
            return f"{path.parent}: is not a folder"
        for each in (path.parent, path) if path.exists() else (path.parent,):
            if not os.access(each, os.R_OK | os.W_OK):
                return f"{each}: can't be read and written by user id {os.geteuid()}"
        return None if path.is_file() or not path.exists() else f"{path}: is not a file"

    def explain(self, error: DatabaseUnavailable) -> str:
        """The cause of the error, for an operator."""
        reason = error.reason or "no answer in time"
        return f"{reason}; {self.obstacle() or self.url.database}" if self.is_sqlite else reason

    async def ping(self) -> None:
        """Return when the database answers. Raises `DatabaseUnavailable` if it does not within 2 seconds."""
        with translate_errors():
            async with asyncio.timeout(2), self.engine.connect() as connection:
                await connection.execute(sa.text("SELECT 1"))

    async def is_read_only(self) -> bool:
        """Whether the connections over which deliveries are recorded refuse writes, as a standby does.

        Raises `DatabaseUnavailable` where no connection can be made.
        """
        return isinstance(self.direct, RawPostgres) and await self.direct.is_read_only()

    async def dispose(self) -> None:
        """Close every connection: those at rest now, those in use as soon as they are given back."""
        self._disposed = True
        await self.direct.close()
        await self.engine.dispose()
        await self.caller_engine.dispose()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _close_if_disposed(self, _connection: object, entry: sa.pool.ConnectionPoolEntry) -> None:
        # A pool that was disposed of keeps what is given back to it, and nobody closes that.
        if self._disposed:
            entry.close()


def _shown(options: PostgresOptions) -> sa.URL:
    """The URL as SQLAlchemy writes it. SQLAlchemy has no list of hosts: several are joined by commas."""
    host, port = options.hosts[0] if len(options.hosts) == 1 else (",".join(host for host, _ in options.hosts), None)
    return sa.URL.create(
        "postgresql+asyncpg", options.user, options.password, host or None, port=port, database=options.database
    )


def _postgres_engine(
    url: sa.URL, options: PostgresOptions, pool_size: int, checks: ConnectionChecks, settings: dict[str, str]
) -> AsyncEngine:
    def create() -> Any:  # noqa: ANN401 - SQLAlchemy's own object
        return engine.dialect.dbapi.connect(  # type: ignore[union-attr] # it has one
            async_creator_fn=partial(connect, options, settings),
            prepared_statement_cache_size=0 if options.has_transaction_pooler else _STATEMENTS_CACHED,
        )

    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        hide_parameters=True,  # parameters are bodies and secrets, and errors are logged
        creator=create,
    )

    def check_out(connection: sa.AdaptedConnection, *_: object) -> None:
        if not connection.run_async(checks.is_usable):
            raise sa.exc.DisconnectionError  # another connection is opened

    def check_in(connection: sa.AdaptedConnection | None, _: object) -> None:
        if connection is not None:
            connection.driver_connection.used_at = monotonic()

    def handle_error(context: sa.ExceptionContext) -> None:
        if checks.failed(context.original_exception):
            context.is_disconnect, context.invalidate_pool_on_disconnect = True, False

    sa.event.listen(engine.sync_engine, "checkout", check_out)
    sa.event.listen(engine.sync_engine, "checkin", check_in)
    sa.event.listen(engine.sync_engine, "handle_error", handle_error)
    return engine


def _sqlite_engine(url: str) -> AsyncEngine:
    engine = create_async_engine(
        url, pool_size=5, max_overflow=0, pool_timeout=5, hide_parameters=True, connect_args={"timeout": 5}
    )
    sa.event.listen(engine.sync_engine, "do_connect", lambda *_: make_private(str(engine.url.database)))
    sa.event.listen(engine.sync_engine, "connect", _configure_sqlite)
    sa.event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(dbapi_connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own object
    # We begin transactions ourselves (see _begin_sqlite): the driver's implicit ones start too late to lock.
    dbapi_connection.isolation_level = None
    try:
        cursor = dbapi_connection.cursor()
        configure_sqlite(cursor.execute)
        cursor.close()
    except BaseException:
        dbapi_connection.close()  # else its thread and its file stay open
        raise


def _begin_sqlite(connection: sa.Connection) -> None:
    # A writer takes the lock at once: a reader that begins to write within its transaction fails instead of waiting.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


# Shared by all tables: the metadata, the names of constraints, the type of times.

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

Id = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Text that is compared and indexed byte by byte: a locale's order costs time and changes with the C library."""


class UtcDateTime(sa.TypeDecorator[datetime]):
    """An aware time in UTC: `timestamptz` on PostgreSQL, sortable text on SQLite."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """The time in UTC. Raises `ValueError` for a naive time: a column that mixes zones can't be repaired."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time to be stored must be aware")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        """The time in UTC; SQLite returns what was stored without its zone."""
        if value is None:
            return None
        if value.tzinfo is UTC:
            return value
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def enum_check(column: str, words: type[StrEnum] | Iterable[str]) -> sa.CheckConstraint:
    """A CHECK constraint that allows only these words in `column`."""
    listed = ", ".join(f"'{word}'" for word in words)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)


def partial_index(name: str, *columns: str, where: sa.TextClause) -> sa.Index:
    """An index that holds only the rows for which `where` is true, on both databases."""
    return sa.Index(name, *columns, postgresql_where=where, sqlite_where=where)
