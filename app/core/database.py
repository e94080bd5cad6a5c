"""The database: PostgreSQL or SQLite behind one small door, with write transactions that commit before they return."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from sqlalchemy import Connection, ExceptionContext, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.core.database_errors import is_of_connection, translated
from app.core.direct import Direct
from app.core.direct_sqlite import PRAGMAS, DirectSqlite

_WRITES = "receiver_writes"
# Parameters that a URL may have for SQLAlchemy's dialect, and that the driver itself doesn't know.
_FOR_SQLALCHEMY = (
    "async_fallback",
    "async_creator_fn",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
)

# plan_cache_mode: a generic plan made while a table was empty scans it for ever after; planning anew costs far less.
_POSTGRES_SETTINGS = {
    "application_name": "rivya-receiver",
    "plan_cache_mode": "force_custom_plan",
    "lock_timeout": "5s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
    "timezone": "UTC",
}


class Database:
    """One engine for the life of a process; `transaction()` to write, `read()` to look."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(url) if self.is_sqlite else _postgres_engine(url, pool_size)
        # SQLite has one writer; waiting here is fair and free, waiting inside SQLite is a busy loop.
        self._writer = asyncio.Lock() if self.is_sqlite else None
        self.direct: Direct | DirectSqlite = (
            DirectSqlite(str(self.url.database), writer=self._writer)
            if self._writer is not None
            else Direct(self._driver_options(), settings=_POSTGRES_SETTINGS)
        )
        """The driver without SQLAlchemy between, for what is said for every delivery."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A write transaction, committed when the block ends, rolled back when it raises.

        Raises `DatabaseUnavailable` for everything that is the database's state and not the statement's fault.
        """
        async with AsyncExitStack() as stack:
            if self._writer is not None:
                await stack.enter_async_context(self._writer)
            stack.enter_context(translated())
            connection = await stack.enter_async_context(self.engine.connect())
            connection = await connection.execution_options(**{_WRITES: True})
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A read transaction. Raises `DatabaseUnavailable` like `transaction`."""
        with translated():
            async with self.engine.connect() as connection, connection.begin():
                yield connection

    async def ping(self) -> None:
        """Return when the database answers; raises `DatabaseUnavailable` if it does not within 2 seconds."""
        with translated():
            async with asyncio.timeout(2), self.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))

    async def is_read_only(self) -> bool:
        """Whether the connections that deliveries are recorded over refuse writes, as a standby's do.

        Raises `DatabaseUnavailable` where there are none.
        """
        return isinstance(self.direct, Direct) and await self.direct.is_read_only()

    async def dispose(self) -> None:
        """Close every connection."""
        await self.direct.close()
        await self.engine.dispose()

    def _driver_options(self) -> dict[str, Any]:
        """What the URL says, as the driver takes it."""
        _, options = self.engine.dialect.create_connect_args(self.url)
        _lead_to_a_writer(None, None, None, options)
        return {name: value for name, value in options.items() if name not in _FOR_SQLALCHEMY}


def _postgres_engine(url: str, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        hide_parameters=True,  # they are bodies and secrets; errors are logged
        connect_args={"timeout": 5, "command_timeout": 35, "server_settings": _POSTGRES_SETTINGS},
    )
    event.listen(engine.sync_engine, "do_connect", _lead_to_a_writer)
    event.listen(engine.sync_engine, "handle_error", _drop_broken)
    return engine


def _lead_to_a_writer(_dialect: object, _record: object, _arguments: object, options: MutableMapping[str, Any]) -> None:
    # Of several hosts, those that are standbys take no writes.
    if isinstance(options.get("host"), list):
        options.setdefault("target_session_attrs", "read-write")


def _drop_broken(context: ExceptionContext) -> None:
    # The pool's other connections lead to the same server: they are replaced, too, as they are next used.
    if is_of_connection(context.original_exception):
        context.is_disconnect = True


def _sqlite_engine(url: str) -> AsyncEngine:
    engine = create_async_engine(
        url, pool_size=5, max_overflow=0, pool_timeout=5, hide_parameters=True, connect_args={"timeout": 5}
    )
    event.listen(engine.sync_engine, "connect", _configure_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(dbapi_connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own object
    # Transactions are begun by us (see _begin_sqlite): the driver's implicit ones start too late to lock.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: a reader that turns writer in mid-transaction fails instead of waiting.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
