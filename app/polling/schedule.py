"""When a generation is polled next: a pure function of its age, the result of the last poll, and a random number."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from app.ledger.models import NextPoll, Tracking
from app.polling.categories import Categories
from app.polling.claims import PollLease, PollTimeLimits

GRACES: Final = MappingProxyType(
    {"image": timedelta(seconds=60), "audio": timedelta(seconds=120), "video": timedelta(seconds=300)}
)
"""How long a callback may take before the first poll, by the model's category."""
GRACE_WHEN_UNKNOWN: Final = timedelta(seconds=120)

LONGEST_GAP: Final = timedelta(minutes=5)
LONGEST_ASKED: Final = timedelta(hours=1)
"""A `Retry-After` of Rivya is followed up to this length."""
STALLED_GAP: Final = timedelta(hours=1)

# Rivya's documented advice for clients without callbacks: first after 2-3 s, then every 5-10 s.
DOCUMENTED_FIRST: Final = timedelta(seconds=2.5)
DOCUMENTED_SHORTEST: Final = timedelta(seconds=5)
DOCUMENTED_LONGEST: Final = timedelta(seconds=10)

# One 404 may come from a replica of Rivya that lags behind; three of them over ten minutes can't.
LOST_AFTER_ANSWERS: Final = 3
LOST_AFTER: Final = timedelta(minutes=10)

_SPREAD: Final = 0.2
_SPARE: Final = timedelta(minutes=1)
_SKEW: Final = timedelta(seconds=1)
_MOST_DOUBLINGS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The settings of polling. Every parameter `chance` is a random number in [0, 1)."""

    interval: timedelta = timedelta(seconds=10)
    horizon: timedelta = timedelta(hours=24)
    grace: timedelta | None = None
    """One grace period for all models; None: by category."""

    def first_poll(self, first_seen_at: datetime, *, category: str | None) -> datetime:
        """The time at which the callback of a model of this category is overdue."""
        grace = GRACES.get(category or "", GRACE_WHEN_UNKNOWN) if self.grace is None else self.grace
        return first_seen_at + grace

    def after_answer(self, first_seen_at: datetime, *, category: str | None, now: datetime, chance: float) -> NextPoll:
        """The next poll of an open generation: after `interval`, growing by half up to 5 minutes, ±20 %.

        Never before the callback is overdue. The gap is `interval` + overdue / 2: 10, 15, 22.5 … seconds by default.
        """
        if self._is_stalled(first_seen_at, now):
            return _stalled(now, chance)
        overdue_at = self.first_poll(first_seen_at, category=category)
        overdue = max(now - overdue_at, timedelta(0))
        gap = min(self.interval + overdue / 2, self._longest)
        return NextPoll(max(now + _spread(gap, chance), overdue_at), Tracking.WATCHING)

    def after_answer_without_callbacks(self, first_seen_at: datetime, *, now: datetime, chance: float) -> NextPoll:
        """The next poll of an open generation without callbacks: after 5 to 10 seconds, as Rivya documents."""
        if self._is_stalled(first_seen_at, now):
            return _stalled(now, chance)
        gap = DOCUMENTED_SHORTEST + (DOCUMENTED_LONGEST - DOCUMENTED_SHORTEST) * chance
        return NextPoll(now + gap, Tracking.WATCHING)

    def after_failure(self, first_seen_at: datetime, *, failures: int, now: datetime, chance: float) -> NextPoll:
        """The next poll after `failures` failures in a row: after `interval`, doubling up to 5 minutes, ±20 %."""
        if self._is_stalled(first_seen_at, now):
            return _stalled(now, chance)
        gap = min(self.interval * 2 ** min(failures - 1, _MOST_DOUBLINGS), self._longest)
        return NextPoll(now + _spread(gap, chance), Tracking.WATCHING)

    def after_not_found(
        self, first_seen_at: datetime, *, count: int, since: datetime, now: datetime, chance: float
    ) -> NextPoll:
        """The next poll after `count` 404s, the first of them at `since`; none once the generation is lost.

        Backs off like after failures, which makes seven polls in ten minutes at the default interval.
        """
        if count >= LOST_AFTER_ANSWERS and now - since >= LOST_AFTER:
            return NextPoll(None, Tracking.LOST)
        return self.after_failure(first_seen_at, failures=count, now=now, chance=chance)

    def bounds(self, now: datetime) -> PollTimeLimits:
        """The latest times for which this schedule can set a poll; a minute is added for the lease."""
        gap = self._longest * (1 + _SPREAD)
        grace = self.grace or max(GRACE_WHEN_UNKNOWN, *GRACES.values())
        return PollTimeLimits(
            watched=now + max(gap, grace) + _SPARE,
            failing=now + max(gap, LONGEST_ASKED) + _SKEW,
            stalled=now + STALLED_GAP * (1 + _SPREAD) + _SKEW,
        )

    @property
    def _longest(self) -> timedelta:
        return max(LONGEST_GAP, self.interval)

    def _is_stalled(self, first_seen_at: datetime, now: datetime) -> bool:
        return now >= first_seen_at + self.horizon


def _stalled(now: datetime, chance: float) -> NextPoll:
    return NextPoll(now + _spread(STALLED_GAP, chance), Tracking.STALLED)


def _spread(gap: timedelta, chance: float) -> timedelta:
    return gap * (1 - _SPREAD + 2 * _SPREAD * chance)


class Timing:
    """Applies the schedule to a model's category and to whether callbacks can be expected; does not wait or write."""

    def __init__(
        self,
        schedule: Schedule,
        categories: Categories,
        *,
        callbacks_expected: Callable[[], bool],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.schedule = schedule
        self._categories = categories
        self._callbacks_expected = callbacks_expected
        self._chance = chance

    def first_poll(self, model: str | None, now: datetime) -> datetime:
        """When to first poll a generation that is first seen now: `app.ledger.decide.FirstPoll`."""
        if not self._callbacks_expected():
            return now + DOCUMENTED_FIRST
        return self.schedule.first_poll(now, category=self._categories.of(model))

    def advance_times(self, now: datetime) -> tuple[datetime, datetime] | None:
        """While no callbacks can be expected: (the time to poll at, for polls scheduled after this time). Else None."""
        return None if self._callbacks_expected() else (now + DOCUMENTED_FIRST, now + DOCUMENTED_LONGEST)

    def after_answer(self, lease: PollLease, now: datetime) -> NextPoll:
        """The next poll after one that returned an open generation."""
        if not self._callbacks_expected():
            return self.schedule.after_answer_without_callbacks(lease.first_seen_at, now=now, chance=self._chance())
        category = self._categories.of(lease.model)
        return self.schedule.after_answer(lease.first_seen_at, category=category, now=now, chance=self._chance())

    def after_failure(self, lease: PollLease, now: datetime, *, retry_after: float | None) -> NextPoll:
        """The next poll after a failed one, not before `retry_after` seconds, which Rivya asked for."""
        failures = lease.failures + 1
        following = self.schedule.after_failure(lease.first_seen_at, failures=failures, now=now, chance=self._chance())
        asked = now + min(timedelta(seconds=retry_after or 0), LONGEST_ASKED)
        return NextPoll(max(following.poll_at or asked, asked), following.tracking)

    def after_not_found(self, lease: PollLease, now: datetime) -> NextPoll:
        """The next poll after a 404."""
        return self.schedule.after_not_found(
            lease.first_seen_at,
            count=lease.not_found_count + 1,
            since=lease.not_found_since or now,
            now=now,
            chance=self._chance(),
        )
