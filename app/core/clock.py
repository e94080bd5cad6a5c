"""The source of time: UTC times for what is stored, elapsed seconds for what is measured; neither jumps."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol


class Clock(Protocol):
    """A source of time; tests pass one that they move by hand."""

    def now(self) -> datetime:
        """The present time, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; they never go back."""


def seconds_elapsed() -> float:
    """Seconds since this machine started, including time in suspend where the system counts it."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class SystemClock:
    """This machine's time when the process began, plus the seconds elapsed since.

    A step of the machine's clock, by NTP or by hand, changes nothing here, because schedules, leases and ages are
    differences. `set_reference` corrects the time.
    """

    def __init__(
        self, *, wall: Callable[[], float] = time.time, elapsed: Callable[[], float] = seconds_elapsed
    ) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._zero = self._zero_before = wall() - elapsed()

    def now(self) -> datetime:
        """The present time, aware, in UTC."""
        return _from_seconds(self._zero + self._elapsed())

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; they never go back."""
        return self._elapsed()

    def wall(self) -> datetime:
        """This machine's clock, with its steps, in UTC."""
        return _from_seconds(self._wall())

    def before(self) -> datetime:
        """The value that `now` would have without the last call of `set_reference`."""
        return _from_seconds(self._zero_before + self._elapsed())

    def set_reference(self, reference: datetime) -> None:
        """Make `reference` the present time."""
        self._zero_before, self._zero = self._zero, reference.timestamp() - self._elapsed()


@dataclass(frozen=True, slots=True)
class DerivedClock:
    """A clock made of two functions."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]


def _from_seconds(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def alternate_clocks(clock: Clock) -> tuple[Clock, ...]:
    """Clocks to try where this one may be wrong: the machine's, and this one without its last correction."""
    if not isinstance(clock, SystemClock):
        return ()
    return DerivedClock(clock.wall, clock.monotonic), DerivedClock(clock.before, clock.monotonic)


# Another clock is believed only after a while, because a step may be a mistake that is soon corrected.

THRESHOLD: Final = 1.0
"""Seconds; clocks that differ by less agree."""
CONFIRM_AFTER: Final = 60.0
"""Seconds for which the difference must stay the same before the other clock is believed."""


@dataclass(frozen=True, slots=True)
class ClockSkew:
    """Another clock is `ahead` seconds ahead of ours, since `since` on the monotonic clock."""

    ahead: float
    since: float


def track_skew(skew: ClockSkew | None, ahead: float, *, at: float) -> ClockSkew | None:
    """The skew after a reading of `ahead` seconds: the same one while it lasts, else a new one; None if both agree."""
    if abs(ahead) < THRESHOLD:
        return None
    if skew is None or abs(ahead - skew.ahead) >= THRESHOLD:
        return ClockSkew(ahead, at)
    return skew


def is_confirmed(skew: ClockSkew | None, *, at: float) -> bool:
    """Whether the skew has lasted for `CONFIRM_AFTER` seconds."""
    return skew is not None and at - skew.since >= CONFIRM_AFTER
