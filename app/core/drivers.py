"""PostgreSQL without SQLAlchemy, for the few statements that run for every delivery, and what database errors mean.

SQLAlchemy's work on a statement and its arrays costs several times the work of PostgreSQL; here the driver gets
constant text and whole columns. Everything else goes through `app.core.database`.
"""

import asyncio
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from time import monotonic
from traceback import format_stack, format_tb
from typing import Any, Final

import asyncpg
import structlog
from sqlalchemy import exc

from app.core.database_url import PostgresOptions
from app.core.errors import DatabaseUnavailable

log = structlog.stdlib.get_logger(__name__)

# Errors that a value caused pass; all others become `DatabaseUnavailable`.

# Classes of SQLSTATE (PostgreSQL manual, appendix A) that a value caused: data exception, integrity constraint
# violation, program limit exceeded (a value too long for an index, or too deep to parse).
_OF_VALUES = ("22", "23", "54")

# Connection, server shutting down, read-only (a server that became a standby), and a prepared statement that is missing
# or exists already: another connection may work.
_OF_CONNECTION = ("08", "57P", "25006", "26000", "42P05")

# These happen to a healthy program and are not logged with the stack: connection, invalid transaction state
# (read-only), rollback (deadlock, serialisation), insufficient resources, object in use (lock time-out), operator
# intervention, system error, invalid authorization and catalog (a database that is being set up), missing privilege,
# undefined table and column (somebody has yet to migrate), and a plan made before the schema changed.
_EXPECTED = ("08", "0A", "25", "28", "3D", "40", "53", "55", "57", "58", "42501", "42P01", "42703")
_NOT_MIGRATED = ("no such table", "no such column")

_DRIVER = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, sqlite3.Error)
_BROKEN = (OSError, EOFError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_LONGEST_REASON = 200
_MOST_CALLERS = 12


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn every database error into `DatabaseUnavailable`, except one that a value caused, which passes."""
    try:
        yield
    except (exc.DBAPIError, exc.TimeoutError, exc.PendingRollbackError, OSError, EOFError, *_DRIVER) as error:
        cause = _cause(error)
        if _is_of_value(cause):
            raise
        reason = _reason(cause)
        if not _is_expected(cause):
            # Frames only: the text of a traceback may quote values.
            frames = "".join([*format_stack(limit=_MOST_CALLERS), *format_tb(error.__traceback__)])
            log.error("database.error", reason=reason, frames=frames)  # noqa: TRY400
        raise DatabaseUnavailable(reason=reason) from error


def is_of_connection(error: BaseException) -> bool:
    """Whether the connection that raised `error` is broken or leads to the wrong server and must be replaced."""
    cause = _cause(error)
    sqlstate = _sqlstate(cause)
    return sqlstate.startswith(_OF_CONNECTION) if sqlstate else isinstance(cause, _BROKEN)


def _cause(error: BaseException) -> BaseException:
    """The driver's own error: SQLAlchemy wraps it once, and its asyncpg dialect once more."""
    orig = getattr(error, "orig", None) or error
    return orig.__cause__ if isinstance(orig.__cause__, _DRIVER) else orig


def _sqlstate(cause: BaseException) -> str:
    return str(getattr(cause, "sqlstate", None) or "")


def _is_of_value(cause: BaseException) -> bool:
    is_sqlites = isinstance(cause, sqlite3.IntegrityError | sqlite3.DataError)
    return is_sqlites or _sqlstate(cause).startswith(_OF_VALUES)


def _is_expected(cause: BaseException) -> bool:
    if sqlstate := _sqlstate(cause):
        return sqlstate.startswith(_EXPECTED)
    # SQLite: locked, disk full, read-only and I/O errors are all OperationalError, and so is bad SQL (SQLITE_ERROR).
    if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
        return str(cause).startswith(_NOT_MIGRATED)
    return isinstance(cause, OSError | exc.TimeoutError | asyncpg.InterfaceError | sqlite3.OperationalError)


def _reason(cause: BaseException) -> str:
    """SQLSTATE, class and first line of an error. Its details and a trigger's text may quote values: left out."""
    sqlstate = _sqlstate(cause)
    name = f"{sqlstate} {type(cause).__name__}".strip()
    text = "" if sqlstate.startswith("P0") or not cause.args else str(cause.args[0])
    first = next(iter(text.splitlines()), "") if isinstance(cause, (*_DRIVER, ConnectionError)) else ""
    return f"{name}: {first}"[:_LONGEST_REASON] if first else name


_SECONDS_TO_CONNECT: Final = 5.0
_SECONDS_FOR_STATEMENT: Final = 35.0
_DEFAULT_PORT: Final = 5432
_IN_STARTUP: Final = "application_name"
_READ_ONLY: Final = "SHOW transaction_read_only"
_FAIL_IF_READ_ONLY: Final = "SELECT 1 / (current_setting('transaction_read_only') = 'off')::int"
"""Divides by 0 then. Without arguments and result it is one round trip, also behind a pooler."""

_KEEP_ALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}


class Connection(asyncpg.Connection):  # type: ignore[misc] # the package has no types
    """A connection to PostgreSQL that knows its age. TCP keepalive is on, so that a NAT does not forget it."""

    local_settings = ""
    """Statements that each transaction begins with, in the same round trip: behind a transaction pooler."""

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:  # noqa: ASYNC109 - asyncpg's
        """As asyncpg's. Everybody who begins a transaction calls it, asyncpg's own transactions too."""
        if self.local_settings and query.startswith("BEGIN"):
            query = f"{query.rstrip(';')}; {self.local_settings}"
        status: str = await super().execute(query, *args, timeout=timeout)
        return status

    def __init__(self, protocol: Any, transport: asyncio.Transport, *arguments: Any) -> None:  # noqa: ANN401
        super().__init__(protocol, transport, *arguments)
        self.opened_at = self.used_at = monotonic()
        sock = transport.get_extra_info("socket")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEP_ALIVE.items():
                if hasattr(socket, name):  # they differ between systems
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


_SECONDS_TO_ANSWER: Final = 1.0
_LONGEST_IDLE: Final = 240.0
"""Seconds. Shorter than the five minutes after which many NATs and firewalls forget a connection."""


class ConnectionChecks:
    """Decides whether a pool may use a connection again. All pools of a process share one."""

    def __init__(self) -> None:
        self.unchecked_seconds = 1.0
        """A connection that was used less long ago is used again without asking it."""
        self._broken_at = 0.0
        """Connections opened before are not used again: they lead to the same server, or through the same NAT."""

    def failed(self, error: BaseException) -> bool:
        """Whether `error` means that the connection must be replaced; then all pools replace theirs."""
        is_broken = is_of_connection(error)
        if is_broken:
            self.drop_all()
        return is_broken

    def drop_all(self) -> None:
        """Have every connection that is open now replaced before its next use."""
        self._broken_at = monotonic()

    async def is_usable(self, connection: Connection) -> bool:
        """Whether the connection works, and leads to a server that takes writes. Otherwise it is terminated.

        A connection that nobody has used yet is always usable: it was opened for this very purpose, and SQLAlchemy,
        which asks about it too, replaces no more than two.
        """
        if connection.used_at == connection.opened_at:
            return True
        now, is_usable = monotonic(), False
        idle = now - connection.used_at
        try:
            if not connection.is_closed() and connection.opened_at > self._broken_at and idle < _LONGEST_IDLE:
                is_usable = idle < self.unchecked_seconds or await self._takes_writes(connection)
                if not is_usable:
                    self._broken_at = max(self._broken_at, now)
        finally:
            if not is_usable:
                connection.terminate()
        return is_usable

    async def _takes_writes(self, connection: Connection) -> bool:
        with suppress(asyncpg.PostgresError, *_BROKEN):
            await connection.execute(_FAIL_IF_READ_ONLY, timeout=_SECONDS_TO_ANSWER)
            return True
        return False


async def connect(
    options: PostgresOptions, settings: Mapping[str, str], *, statement_seconds: float | None = _SECONDS_FOR_STATEMENT
) -> Connection:
    """A connection whose session has `settings`, except those that the URL's own `options` set.

    The hosts are tried in order, each for its share of five seconds or for `connect_timeout`.

    Raises `ConnectionError` that says what is wrong with each host, or what asyncpg raises.
    """
    ours = {name: value for name, value in settings.items() if name not in options.settings_named}
    startup = {**{name: ours.pop(name) for name in (_IN_STARTUP,) if name in ours}, **options.startup}
    seconds = options.connect_seconds or _SECONDS_TO_CONNECT / len(options.hosts)
    failures: dict[str, str] = {}
    wanted = options.target_session_attrs
    for target in ("standby", "any") if wanted == "prefer-standby" else (wanted,):
        for host, port in options.hosts:
            try:
                async with asyncio.timeout(seconds):
                    connection: Connection = await asyncpg.connect(
                        **options.driver,
                        host=host or None,
                        port=port,
                        user=options.user,
                        password=options.password,
                        database=options.database,
                        target_session_attrs=target,
                        command_timeout=statement_seconds,
                        server_settings=startup,
                        connection_class=Connection,
                        # Else statements get names, and a name is known to one session only.
                        **{"statement_cache_size": 0} if options.has_transaction_pooler else {},
                    )
                    await _configure(connection, ours, is_each_transaction=options.has_transaction_pooler)
                    return connection
            except (OSError, asyncpg.CannotConnectNowError) as error:
                failure = getattr(error, "strerror", None) or str(error) or f"no answer within {seconds:g} s"
            except asyncpg.TargetServerAttributeNotMatched:  # SQLAlchemy would take it for an error of the statement
                failure = f"the server is not {target}"
            failures[f"{host or 'the default host'}:{port or _DEFAULT_PORT}"] = failure
    raise ConnectionError("; ".join(f"{address}: {failure}" for address, failure in failures.items()))


async def _configure(connection: Connection, settings: Mapping[str, str], *, is_each_transaction: bool) -> None:
    if is_each_transaction:
        connection.local_settings = "; ".join(f"SET LOCAL {name} = {_literal(settings[name])}" for name in settings)
        return
    # Not in the startup packet: PgBouncer refuses settings that it does not know. One statement is one round trip.
    try:
        calls = (f"set_config({_literal(name)}, {_literal(value)}, false)" for name, value in settings.items())
        await connection.execute(f"SELECT {', '.join(calls)}")
    except BaseException:
        connection.terminate()
        raise


def _literal(text: str) -> str:
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


_SECONDS_FOR_CONNECTION = 5.0
_SECONDS_TO_CLOSE = 2.0

# Planned once, and never as a scan: a plan made while a table was empty would scan it from then on, and these
# statements have only one good plan, by their keys.
DIRECT_SETTINGS = {
    "plan_cache_mode": "force_generic_plan",
    **dict.fromkeys(("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin"), "off"),
}


class RawPostgres:
    """A pool of at most `most` connections, opened when first needed and kept until they break."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        checks: ConnectionChecks,
        *,
        most: int = 4,
        has_transaction_pooler: bool = False,
    ) -> None:
        self.open = connect
        """Opens a connection that is not of the pool. Raises what the driver raises."""
        self.checks = checks
        self.has_transaction_pooler = has_transaction_pooler
        self._idle: list[Connection] = []
        self._free = asyncio.Semaphore(most)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction, committed when the block ends, rolled back when it raises.

        Raises `DatabaseUnavailable` for every database error that a value of the statement did not cause.
        """
        with translate_errors():
            async with self._connection() as connection:
                await connection.execute("BEGIN")
                try:
                    yield connection
                except Exception as error:
                    if not is_of_connection(error):  # else ROLLBACK would wait for the broken connection again
                        await connection.execute("ROLLBACK")
                    raise
                await connection.execute("COMMIT")

    async def fetch(self, statement: str, *arguments: object) -> list[Any]:
        """The rows of one statement, run as its own transaction. Raises like `transaction`."""
        if self.has_transaction_pooler:  # the driver needs two round trips for a statement, in one session
            async with self.transaction() as connection:
                return list(await connection.fetch(statement, *arguments))
        with translate_errors():
            async with self._connection() as connection:
                rows: list[Any] = await connection.fetch(statement, *arguments)
        return rows

    async def is_read_only(self) -> bool:
        """Whether the server refuses writes, as a standby does; all connections are then replaced.

        Raises like `transaction`.
        """
        [[setting]] = await self.fetch(_READ_ONLY)
        if is_read_only := bool(setting == "on"):
            self.checks.drop_all()
        return is_read_only

    async def close(self) -> None:
        """Close the idle connections; the others are closed where they are used."""
        idle, self._idle = self._idle, []
        for connection in idle:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await connection.close(timeout=_SECONDS_TO_CLOSE)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        async with asyncio.timeout(_SECONDS_FOR_CONNECTION):
            await self._free.acquire()
        try:
            connection = await self._take()
            try:
                yield connection
            except BaseException as error:
                self._give_back(connection, error)
                raise
            self._give_back(connection)
        finally:
            self._free.release()

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if await self.checks.is_usable(connection):
                return connection
        return await self.open()

    def _give_back(self, connection: Connection, error: BaseException | None = None) -> None:
        is_broken = error is not None and self.checks.failed(error)
        is_cancelled = not isinstance(error, Exception | None)  # perhaps in the middle of a statement
        if is_broken or is_cancelled or connection.is_closed() or connection.is_in_transaction():
            connection.terminate()
        else:
            connection.used_at = monotonic()
            self._idle.append(connection)
