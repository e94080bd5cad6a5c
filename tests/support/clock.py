"""A clock that tests move by hand, and the patience of those that go by the real one."""

from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 5, 10, 12, tzinfo=UTC)
BUSY = 5.0
"""Seconds that a busy machine may take on top of what is promised, in all."""


class ManualClock:
    """Stands still until told otherwise."""

    def __init__(self, now: datetime = NOON) -> None:
        self._start = now
        self._now = now

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return (self._now - self._start).total_seconds()

    def advance(self, *, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)

    def step(self, *, seconds: float) -> None:
        """The wall clock is set; no time passes."""
        self._now += timedelta(seconds=seconds)
        self._start += timedelta(seconds=seconds)
