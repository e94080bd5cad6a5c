"""Finds out whether our clock is still right: against the database's on PostgreSQL, else against this machine's."""

from datetime import datetime
from typing import Final

import structlog
from prometheus_client import Gauge
from sqlalchemy import func, select

from app.core.clock import THRESHOLD, ClockSkew, SystemClock, is_confirmed, track_skew
from app.core.database import Database

AHEAD = Gauge("receiver_clock_ahead_seconds", "How far the reference clock is ahead of the one the service goes by.")

_SECONDS_BETWEEN_LOOKS: Final = 10.0
_NOW = select(func.clock_timestamp())

log = structlog.stdlib.get_logger(__name__)


class ClockSync:
    """On PostgreSQL every replica goes by the database's time, so that all mean the same by a lease or a due poll."""

    def __init__(self, clock: SystemClock, database: Database) -> None:
        self._clock = clock
        self._database = database
        self._doubt: ClockSkew | None = None
        self._is_first = True

    async def run_once(self) -> float:
        """Compare, and believe the other clock if it is time to; returns the seconds until the next turn.

        The first look at a database is believed at once: nothing has been scheduled by our clock yet. Raises
        `DatabaseUnavailable`.
        """
        asked_at = self._clock.monotonic()
        reference = await self._reference()
        at = self._clock.monotonic()
        if at - asked_at >= THRESHOLD:
            return THRESHOLD  # an answer that took so long tells nothing
        ahead = (reference - self._clock.now()).total_seconds()
        AHEAD.set(ahead)
        before, self._doubt = self._doubt, track_skew(self._doubt, ahead, at=at)
        if self._doubt is not None and (self._is_first or is_confirmed(self._doubt, at=at)):
            self._believe(reference, ahead)
        elif self._doubt is not None and self._doubt is not before:
            log.warning("clock.stepped", ahead=round(ahead, 1))
        self._is_first = False
        return _SECONDS_BETWEEN_LOOKS

    def _believe(self, reference: datetime, ahead: float) -> None:
        self._clock.adopt(reference)
        self._doubt = None
        log.warning("clock.adopted", ahead=round(ahead, 1))

    async def _reference(self) -> datetime:
        if self._database.is_sqlite:
            return self._clock.wall()
        async with self._database.read() as connection:
            found: datetime = (await connection.execute(_NOW)).scalar_one()
        return found
