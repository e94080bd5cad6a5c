"""The one source of time: UTC moments for what is stored, elapsed seconds for what is measured; neither jumps."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol


class Clock(Protocol):
    """Tells the time; tests pass one that they move by hand."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds that only ever grow, from an arbitrary start."""


def seconds_elapsed() -> float:
    """Seconds since this machine started, those it was suspended included where the system counts them."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class SystemClock:
    """This machine's time as it was when the process began, carried on by what has elapsed since.

    When somebody sets the machine's clock, by NTP or by hand, everything here goes on as it was: schedules, leases and
    ages are differences. `adopt` is for whoever has found out which time is right.
    """

    def __init__(
        self, *, wall: Callable[[], float] = time.time, elapsed: Callable[[], float] = seconds_elapsed
    ) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._zero = self._zero_before = wall() - elapsed()

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        return _from_seconds(self._zero + self._elapsed())

    def monotonic(self) -> float:
        """Seconds that only ever grow, from an arbitrary start."""
        return self._elapsed()

    def wall(self) -> datetime:
        """What this machine's clock says."""
        return _from_seconds(self._wall())

    def before(self) -> datetime:
        """What `now` would be if nothing had been adopted last."""
        return _from_seconds(self._zero_before + self._elapsed())

    def adopt(self, reference: datetime) -> None:
        """From now on it is `reference`."""
        self._zero_before, self._zero = self._zero, reference.timestamp() - self._elapsed()


class DerivedClock:
    """One of several opinions on what time it is."""

    def __init__(self, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._now = now
        self._monotonic = monotonic

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        return self._now()

    def monotonic(self) -> float:
        """Seconds that only ever grow, from an arbitrary start."""
        return self._monotonic()


def _from_seconds(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def alternate_clocks(clock: Clock) -> tuple[Clock, ...]:
    """Clocks that may be right where this one is wrong: the machine's, and this one before it was last corrected."""
    if not isinstance(clock, SystemClock):
        return ()
    return DerivedClock(clock.wall, clock.monotonic), DerivedClock(clock.before, clock.monotonic)


# When a clock that says something else is believed: not at once, a step may be a mistake soon put right; pure.


THRESHOLD: Final = 1.0
"""Seconds; clocks that are less apart agree."""
CONFIRM_AFTER: Final = 60.0
"""Seconds for which another clock has to say the same before it is believed."""


@dataclass(frozen=True, slots=True)
class ClockSkew:
    """Another clock has been so many seconds ahead of ours since then."""

    ahead: float
    since: float


def track_skew(doubt: ClockSkew | None, ahead: float, *, at: float) -> ClockSkew | None:
    """What is held against our clock when the other is `ahead`; None while they agree."""
    if abs(ahead) < THRESHOLD:
        return None
    if doubt is None or abs(ahead - doubt.ahead) >= THRESHOLD:
        return ClockSkew(ahead, at)
    return doubt


def is_confirmed(doubt: ClockSkew | None, *, at: float) -> bool:
    """The other clock has said the same for long enough."""
    return doubt is not None and at - doubt.since >= CONFIRM_AFTER
