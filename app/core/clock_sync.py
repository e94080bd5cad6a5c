"""Compares our clock with a reference: the database's clock on PostgreSQL, else this machine's."""

from typing import Final

import structlog
from prometheus_client import Gauge
from sqlalchemy import func, select

from app.core.clock import THRESHOLD, ClockSkew, SystemClock, is_confirmed, track_skew
from app.core.database import Database

AHEAD = Gauge("receiver_clock_ahead_seconds", "How far the reference clock is ahead of the one the service goes by.")

_SECONDS_BETWEEN_CHECKS: Final = 10.0
_NOW = select(func.clock_timestamp())

log = structlog.stdlib.get_logger(__name__)


class ClockSync:
    """Corrects our clock. On PostgreSQL all replicas use the database's time, so they agree on leases and due polls."""

    def __init__(self, clock: SystemClock, database: Database) -> None:
        self._clock = clock
        self._database = database
        self._skew: ClockSkew | None = None
        self._is_first = True

    async def run_once(self) -> float:
        """Compare the clocks and correct ours if the skew is confirmed; returns the seconds until the next run.

        The first comparison is believed at once, because nothing was scheduled by our clock yet.

        Raises `DatabaseUnavailable`.
        """
        asked_at = self._clock.monotonic()
        if self._database.is_sqlite:
            reference = self._clock.wall()
        else:
            async with self._database.read() as connection:
                reference = (await connection.execute(_NOW)).scalar_one()
        at = self._clock.monotonic()
        if at - asked_at >= THRESHOLD:
            return THRESHOLD  # so slow an answer says nothing about the time
        ahead = (reference - self._clock.now()).total_seconds()
        AHEAD.set(ahead)
        before, self._skew = self._skew, track_skew(self._skew, ahead, at=at)
        if self._skew is not None and (self._is_first or is_confirmed(self._skew, at=at)):
            self._clock.set_reference(reference)
            self._skew = None
            log.warning("clock.adopted", ahead=round(ahead, 1))
        elif self._skew is not None and self._skew is not before:
            log.warning("clock.stepped", ahead=round(ahead, 1))
        self._is_first = False
        return _SECONDS_BETWEEN_CHECKS
