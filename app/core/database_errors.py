"""Which database errors mean "not now" rather than "never": those become `DatabaseUnavailable`, the others pass."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy import exc

from app.core.errors import DatabaseUnavailable

# Classes of SQLSTATE (PostgreSQL manual, appendix A): connection, invalid transaction state (read-only), rollback
# (deadlock, serialisation), insufficient resources, object in use (lock time-out), operator intervention, system error,
# invalid authorization and catalog (a database that is being set up).
_NOT_NOW = ("08", "25", "28", "3D", "40", "53", "55", "57", "58")

# Undefined table and column: somebody has yet to migrate the database.
_NOT_MIGRATED_STATES = ("42P01", "42703")
_NOT_MIGRATED = ("no such table", "no such column")

_REFUSED_BY_SQLALCHEMY = (exc.OperationalError, exc.InterfaceError)
_REFUSED_BY_DRIVER = (asyncpg.InterfaceError, sqlite3.OperationalError, sqlite3.InterfaceError)


@contextmanager
def translated() -> Iterator[None]:
    """Turn what is the database's state into `DatabaseUnavailable`; let what is the statement's fault pass."""
    try:
        yield
    except (exc.TimeoutError, OSError) as error:
        raise DatabaseUnavailable(reason=type(error).__name__) from error
    except (exc.DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, sqlite3.Error) as error:
        if _is_unavailable(error):
            raise DatabaseUnavailable(reason=_reason(error)) from error
        raise


def _reason(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return type(cause.__cause__ if isinstance(error, exc.DBAPIError) and cause.__cause__ else cause).__name__


def _is_unavailable(error: Exception) -> bool:
    """Whether an error is the database's state; errors come from SQLAlchemy, or from a driver without it between."""
    if isinstance(error, exc.DBAPIError):
        return error.connection_invalidated or _is_state(error, error.orig, _REFUSED_BY_SQLALCHEMY)
    if isinstance(error, asyncpg.DataError):
        return False  # an interface error by descent, but it is the value that the driver can't send
    return _is_state(error, error, _REFUSED_BY_DRIVER)


def _is_state(error: Exception, told: BaseException | None, refused: tuple[type[Exception], ...]) -> bool:
    sqlstate = getattr(told, "sqlstate", None)
    if sqlstate is not None:
        return sqlstate[:2] in _NOT_NOW or sqlstate in _NOT_MIGRATED_STATES
    # SQLite: locked, disk full, read-only and I/O errors are all OperationalError, and so is bad SQL (SQLITE_ERROR).
    # A lost asyncpg connection has no SQLSTATE and is an InterfaceError.
    is_our_fault = getattr(told, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    if is_our_fault and str(told).startswith(_NOT_MIGRATED):
        return True
    return isinstance(error, refused) and not is_our_fault
