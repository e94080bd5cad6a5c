"""SQLite without SQLAlchemy between, for what is said for every delivery: one thread, one connection, whole groups."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from app.core.database_errors import translated

PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000")
_SECONDS_FOR_LOCK = 5.0

Made = TypeVar("Made")


class DirectSqlite:
    """The thread that writes. It hands the interpreter back and forth a few times a group, not a few times a row."""

    def __init__(self, path: str, *, writer: asyncio.Lock) -> None:
        self._path = path
        self._writer = writer
        """Shared with `Database.transaction`: waiting here is fair, waiting inside SQLite is a busy loop."""
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def transaction(self, act: Callable[[sqlite3.Connection], Made]) -> Made:
        """Do `act` in the thread, within a write transaction, committed when it returns, rolled back when it raises.

        Raises `DatabaseUnavailable` for what is the database's state and not the statement's fault.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        async with self._writer:
            with translated():
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._act, act)

    async def close(self) -> None:
        """End the thread and its connection."""
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
            self._thread.shutdown()
            self._thread = None

    def _act(self, act: Callable[[sqlite3.Connection], Made]) -> Made:
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        try:
            made = act(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return made

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            # Transactions are begun by us: the driver's implicit ones start too late to lock.
            self._connection = sqlite3.connect(self._path, timeout=_SECONDS_FOR_LOCK, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            for pragma in PRAGMAS:
                self._connection.execute(f"PRAGMA {pragma}")
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
