"""The running processes, by the heartbeats that they write into `replicas`."""

from collections.abc import Sequence
from datetime import timedelta
from importlib.metadata import version
from typing import Final

from sqlalchemy import Column, RowMapping, Table, Text, delete, select

from app.core.clock import Clock
from app.core.database import Database, Id, UtcDateTime, metadata

replicas = Table(
    "replicas",
    metadata,
    Column("id", Id, primary_key=True),
    Column("version", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False, comment="its last heartbeat"),
)

_SECONDS_BETWEEN_BEATS: Final = 10.0
_GONE: Final = timedelta(minutes=1)


class Heartbeat:
    """Says every 10 s that the process `name` runs, and removes those that have been silent for a minute."""

    def __init__(self, database: Database, clock: Clock, *, name: str) -> None:
        self._database = database
        self._clock = clock
        self._row = {"id": name, "version": version("rivya-receiver"), "started_at": clock.now()}

    async def run_once(self) -> float:
        """Write one heartbeat; returns the seconds until the next. Raises `DatabaseUnavailable`."""
        now = self._clock.now()
        beat = self._database.insert(replicas).values({**self._row, "seen_at": now})
        async with self._database.transaction() as connection:
            await connection.execute(beat.on_conflict_do_update(index_elements=["id"], set_={"seen_at": now}))
            await connection.execute(delete(replicas).where(replicas.c.seen_at < now - _GONE))
        return _SECONDS_BETWEEN_BEATS

    async def stop(self) -> None:
        """Say that this process has ended. Raises `DatabaseUnavailable`."""
        async with self._database.transaction() as connection:
            await connection.execute(delete(replicas).where(replicas.c.id == self._row["id"]))

    async def running(self) -> Sequence[RowMapping]:
        """The rows of the processes that have been heard of lately, oldest first. Raises `DatabaseUnavailable`."""
        listing = (
            select(replicas).where(replicas.c.seen_at >= self._clock.now() - _GONE).order_by(replicas.c.started_at)
        )
        async with self._database.read_for_caller() as connection:
            return (await connection.execute(listing)).mappings().all()
