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


@contextmanager
def translated() -> Iterator[None]:
    """Turn what is the database's state into `DatabaseUnavailable`; let what is the statement's fault pass."""
    try:
        yield
    except (exc.TimeoutError, OSError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailable from error
    except asyncpg.PostgresError as error:
        if _is_state(error.sqlstate):
            raise DatabaseUnavailable from error
        raise
    except exc.DBAPIError as error:
        if _is_unavailable(error):
            raise DatabaseUnavailable from error
        raise


def _is_unavailable(error: exc.DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is not None:
        return _is_state(sqlstate)
    # SQLite: locked, disk full, read-only and I/O errors are all OperationalError, and so is bad SQL (SQLITE_ERROR).
    # A lost asyncpg connection has no SQLSTATE and is an InterfaceError.
    is_our_fault = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    return isinstance(error, exc.OperationalError | exc.InterfaceError) and not is_our_fault


def _is_state(sqlstate: str | None) -> bool:
    return sqlstate is not None and sqlstate[:2] in _NOT_NOW
