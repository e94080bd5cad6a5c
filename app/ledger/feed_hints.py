"""Hints between replicas on PostgreSQL that the feed has grown, by NOTIFY; whoever misses one finds out by looking."""

import asyncio
from collections.abc import Callable
from typing import Final

from app.core.database import Database
from app.core.drivers import Connection, RawPostgres, translate_errors
from app.core.waiters import until_set
from app.ledger.recorder import Changes

CHANNEL: Final = "receiver_feed"
_SECONDS_BETWEEN_HINTS: Final = 0.1
"""Commits of this process within this time share a hint."""
_SECONDS_BETWEEN_RUNS: Final = 0.5


class FeedHints:
    """Sends a hint after commits of this process, and calls `on_hint` for those of others while `is_followed` is true.

    A hint is a transaction of its own: NOTIFY within a batch's would make commits wait for each other.
    """

    def __init__(self, direct: RawPostgres, changes: Changes, *, name: str) -> None:
        self._direct = direct
        self._name = name
        """Of this process: its own hints are not for itself."""
        self._connection: Connection | None = None
        self._committed = asyncio.Event()
        self.on_hint: Callable[[], None] = lambda: None
        self.is_followed: Callable[[], bool] = lambda: False
        changes.commits.add(self._committed)

    @property
    def is_listening(self) -> bool:
        """Hints of other replicas come, as far as we know."""
        return self._connection is not None and not self._connection.is_closed()

    async def run_once(self) -> float:
        """Begin or end to listen, and send a hint if one is due; returns the seconds until the next run.

        Raises `DatabaseUnavailable`.
        """
        if self.is_followed() and not self.is_listening:
            await self._listen()
        elif not self.is_followed():
            self.close()
        await until_set(self._committed, _SECONDS_BETWEEN_RUNS)
        if self._committed.is_set():
            self._committed.clear()
            await self._direct.fetch("SELECT pg_notify($1, $2)", CHANNEL, self._name)
        return _SECONDS_BETWEEN_HINTS

    def close(self) -> None:
        """End to listen."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _listen(self) -> None:
        self.close()
        with translate_errors():
            self._connection = connection = await self._direct.open()
            await connection.add_listener(CHANNEL, self._on_notification)
        self.on_hint()  # for what was committed before

    def _on_notification(self, _connection: Connection, _pid: int, _channel: str, name: object) -> None:
        if name != self._name:
            self.on_hint()


def feed_hints(database: Database, changes: Changes, *, name: str) -> FeedHints | None:
    """Hints for the process `name`; None on SQLite, and behind a transaction pooler, where no session can listen."""
    direct = database.direct
    if not isinstance(direct, RawPostgres) or direct.has_transaction_pooler:
        return None
    return FeedHints(direct, changes, name=name)
