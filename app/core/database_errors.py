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


@contextmanager
def translated() -> Iterator[None]:
    """Turn what is the database's state into `DatabaseUnavailable`; let what is the statement's fault pass."""
    try:
        yield
    except asyncpg.DataError:
        raise  # an interface error by descent, but it is the value that the driver can't send
    except (exc.TimeoutError, OSError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailable(reason=type(error).__name__) from error
    except asyncpg.PostgresError as error:
        if _is_state(error.sqlstate):
            raise DatabaseUnavailable(reason=type(error).__name__) from error
        raise
    except exc.DBAPIError as error:
        if _is_unavailable(error):
            raise DatabaseUnavailable(reason=_reason(error)) from error
        raise
    except sqlite3.Error as error:
        if _is_sqlite_state(error):
            raise DatabaseUnavailable(reason=type(error).__name__) from error
        raise


def _reason(error: exc.DBAPIError) -> str:
    cause = error.orig.__cause__ if error.orig is not None and error.orig.__cause__ is not None else error.orig
    return type(cause if cause is not None else error).__name__


def _is_unavailable(error: exc.DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is not None:
        return _is_state(sqlstate)
    # A lost asyncpg connection has no SQLSTATE and is an InterfaceError.
    is_refused = isinstance(error, exc.OperationalError | exc.InterfaceError)
    return _is_not_migrated(error.orig) or (is_refused and not _is_bad_sql(error.orig))


def _is_sqlite_state(error: sqlite3.Error) -> bool:
    is_refused = isinstance(error, sqlite3.OperationalError | sqlite3.InterfaceError)
    return _is_not_migrated(error) or (is_refused and not _is_bad_sql(error))


def _is_bad_sql(error: BaseException | None) -> bool:
    # SQLite: locked, disk full, read-only and I/O errors are all OperationalError, and so is bad SQL (SQLITE_ERROR).
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR


def _is_not_migrated(error: BaseException | None) -> bool:
    return _is_bad_sql(error) and str(error).startswith(_NOT_MIGRATED)


def _is_state(sqlstate: str | None) -> bool:
    return sqlstate is not None and (sqlstate[:2] in _NOT_NOW or sqlstate in _NOT_MIGRATED_STATES)
