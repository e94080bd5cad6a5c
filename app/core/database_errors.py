"""Which database errors are the fault of a value: those pass. All others mean "not now": `DatabaseUnavailable`."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import format_stack, format_tb

import asyncpg
import structlog
from sqlalchemy import exc

from app.core.errors import DatabaseUnavailable

# Classes of SQLSTATE (PostgreSQL manual, appendix A): data exception, integrity constraint violation, program limit
# exceeded (a value too long for an index, or too deep to parse).
_OF_VALUES = ("22", "23", "54")

# Connection, server shutting down, read-only (a server that became a standby), and a prepared statement that is not
# there or there already: another connection may do better.
_OF_CONNECTION = ("08", "57P", "25006", "26000", "42P05")

# What is known to happen to a healthy program, and is not logged with its stack: connection, invalid transaction state
# (read-only), rollback (deadlock, serialisation), insufficient resources, object in use (lock time-out), operator
# intervention, system error, invalid authorization and catalog (a database that is being set up), missing privilege,
# undefined table and column (somebody has yet to migrate), a plan made before the schema changed, and the keys of
# tables that are being partitioned.
_EXPECTED = ("08", "0A", "25", "28", "3D", "40", "53", "55", "57", "58", "42501", "42P01", "42703", "42P10", "42803")
_NOT_MIGRATED = ("no such table", "no such column")

_DRIVER = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, sqlite3.Error)
_BROKEN = (OSError, EOFError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_LONGEST_REASON = 200
_MOST_CALLERS = 12

log = structlog.stdlib.get_logger(__name__)


@contextmanager
def translated() -> Iterator[None]:
    """Turn every database error into `DatabaseUnavailable`, but for one that is the fault of a value: that passes."""
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
    """Whether the connection that raised `error` is broken or leads to the wrong server, and has to be replaced."""
    cause = _cause(error)
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate is not None:
        return str(sqlstate).startswith(_OF_CONNECTION)
    return isinstance(cause, _BROKEN)


def _cause(error: BaseException) -> BaseException:
    """The driver's own error, which SQLAlchemy wraps once, and its dialect for asyncpg once more."""
    orig = getattr(error, "orig", None) or error
    return orig.__cause__ if isinstance(orig.__cause__, _DRIVER) else orig


def _is_of_value(cause: BaseException) -> bool:
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate is not None:
        return str(sqlstate).startswith(_OF_VALUES)
    return isinstance(cause, sqlite3.IntegrityError | sqlite3.DataError)


def _is_expected(cause: BaseException) -> bool:
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate is not None:
        return str(sqlstate).startswith(_EXPECTED)
    # SQLite: locked, disk full, read-only and I/O errors are all OperationalError, and so is bad SQL (SQLITE_ERROR).
    if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
        return str(cause).startswith(_NOT_MIGRATED)
    return isinstance(cause, OSError | exc.TimeoutError | asyncpg.InterfaceError | sqlite3.OperationalError)


def _reason(cause: BaseException) -> str:
    """SQLSTATE, class and first line of an error. The details of an error may quote values: they are left out, and so
    is the text that somebody's trigger raises."""
    sqlstate = str(getattr(cause, "sqlstate", None) or "")
    name = f"{sqlstate} {type(cause).__name__}".strip()
    text = "" if sqlstate.startswith("P0") or not cause.args else str(cause.args[0])
    first = next(iter(text.splitlines()), "") if isinstance(cause, _DRIVER) else ""
    return f"{name}: {first}"[:_LONGEST_REASON] if first else name
