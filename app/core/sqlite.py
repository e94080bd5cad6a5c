"""SQLite without SQLAlchemy: one connection in a thread of its own writes what is recorded."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from app.core.drivers import translate_errors

_PRAGMAS: Final = (
    *("synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"),
    # Pages, 16 MB: a page that changes several times meanwhile is copied into the database once. By default there is a
    # checkpoint every 1,000, that is several times a second, and each flushes both files: 1.4 times as many deliveries.
    "wal_autocheckpoint=4000",
)
_SECONDS_FOR_LOCK = 5.0
_ATTEMPTS: Final = 10

Result = TypeVar("Result")


def make_private(path: str) -> None:
    """Let only our user read a SQLite file, which is made if it isn't there, and the files that SQLite has beside it.

    SQLite gives new ones beside it the rights of the file itself.
    """
    with suppress(OSError):  # it is there, or nothing can be written: connecting says more
        Path(path).touch(0o600, exist_ok=False)
    for each in map(Path, (path, f"{path}-wal", f"{path}-shm", f"{path}-journal")):
        # Not opened: closing a file of SQLite's would drop the locks that this process has on it.
        with suppress(OSError):
            each.chmod(each.stat().st_mode & 0o700)


def configure_sqlite(execute: Callable[[str], object]) -> None:
    """Set what a new connection needs; `execute` runs a statement on it. Raises `sqlite3.Error`."""
    for pragma in _PRAGMAS:
        execute(f"PRAGMA {pragma}")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or attempt == _ATTEMPTS:
                raise
            # Several make the file at once. SQLite waits for a lock here, but not where the journal is changed.
            execute("BEGIN IMMEDIATE")
            execute("COMMIT")
        else:
            return


class RawSqlite:
    """One thread with one connection for all writes: it switches threads a few times a group, not a few times a row."""

    def __init__(self, path: str, *, writer: asyncio.Lock) -> None:
        self._path = path
        self._writer = writer
        """Shared with `Database.transaction`: waiting for it is fair, waiting inside SQLite is a busy loop."""
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def transaction(self, act: Callable[[sqlite3.Connection], Result]) -> Result:
        """The result of `act`, run in the thread in a write transaction that is rolled back when it raises.

        Raises `DatabaseUnavailable` for every database error that a value of the statement did not cause.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        async with self._writer:
            with translate_errors():
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._act, act)

    async def close(self) -> None:
        """End the thread and its connection."""
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
            self._thread.shutdown()
            self._thread = None

    def _act(self, act: Callable[[sqlite3.Connection], Result]) -> Result:
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = act(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            make_private(self._path)
            # We begin transactions ourselves: the driver's implicit ones start too late to lock.
            connection = sqlite3.connect(self._path, timeout=_SECONDS_FOR_LOCK, isolation_level=None)
            connection.row_factory = sqlite3.Row
            try:
                configure_sqlite(connection.execute)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
