"""When a generation is polled next: decided by its age, its category, the result of the last poll, and a random number.

The category of a model is read from Rivya's catalogue.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

import structlog

from app.core.clock import Clock
from app.ledger.models import NextPoll, Tracking
from app.polling.claims import PollLease, PollTimeLimits
from app.ratelimit.limiter import RateLimiter
from app.rivya.errors import RivyaError

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
    """The settings of polling, and what decides about a poll beside the lease and the time."""

    interval: timedelta = timedelta(seconds=10)
    horizon: timedelta = timedelta(hours=24)
    grace: timedelta | None = None
    """One grace period for all models; None: by category."""
    category_of: Callable[[str | None], str | None] = lambda _: None
    """Returns a model's category, None if it is not known."""
    callbacks_expected: Callable[[], bool] = lambda: True
    chance: Callable[[], float] = random.random
    """Returns a number in [0, 1)."""

    def first_poll(self, model: str | None, now: datetime) -> datetime:
        """When to first poll a generation that is first seen now: `app.ledger.decide.FirstPoll`."""
        return self._overdue_at(model, now) if self.callbacks_expected() else now + DOCUMENTED_FIRST

    def advance_times(self, now: datetime) -> tuple[datetime, datetime] | None:
        """While no callbacks can be expected: (the time to poll at, for polls scheduled after this time). Else None."""
        return None if self.callbacks_expected() else (now + DOCUMENTED_FIRST, now + DOCUMENTED_LONGEST)

    def after_answer(self, lease: PollLease, now: datetime) -> NextPoll:
        """The next poll after one that returned an open generation.

        After `interval`, growing by half up to 5 minutes, ±20 %, and never before the callback is overdue: the gap is
        `interval` + overdue / 2, by default 10, 15, 22.5 … seconds. Without callbacks after 5 to 10 seconds, as Rivya
        documents.
        """
        if self._is_stalled(lease, now):
            return self._stalled(now)
        if not self.callbacks_expected():
            gap = DOCUMENTED_SHORTEST + (DOCUMENTED_LONGEST - DOCUMENTED_SHORTEST) * self.chance()
            return NextPoll(now + gap, Tracking.WATCHING)
        overdue_at = self._overdue_at(lease.model, lease.first_seen_at)
        gap = min(self.interval + max(now - overdue_at, timedelta(0)) / 2, self._longest)
        return NextPoll(max(now + self._spread(gap), overdue_at), Tracking.WATCHING)

    def after_failure(self, lease: PollLease, now: datetime, *, retry_after: float | None = None) -> NextPoll:
        """The next poll after a failed one: after `interval`, doubling up to 5 minutes, ±20 %.

        Not before `retry_after` seconds, which Rivya asked for.
        """
        following = self._backed_off(lease, lease.failures, now)
        asked = now + min(timedelta(seconds=retry_after or 0), LONGEST_ASKED)
        return NextPoll(max(following.poll_at or asked, asked), following.tracking)

    def after_not_found(self, lease: PollLease, now: datetime) -> NextPoll:
        """The next poll after a 404; none once the generation is lost.

        Backs off like after failures, which makes seven polls in ten minutes at the default interval.
        """
        if lease.not_found_count + 1 >= LOST_AFTER_ANSWERS and now - (lease.not_found_since or now) >= LOST_AFTER:
            return NextPoll(None, Tracking.LOST)
        return self._backed_off(lease, lease.not_found_count, now)

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

    def _overdue_at(self, model: str | None, first_seen_at: datetime) -> datetime:
        category = self.category_of(model) or ""
        return first_seen_at + (GRACES.get(category, GRACE_WHEN_UNKNOWN) if self.grace is None else self.grace)

    def _backed_off(self, lease: PollLease, doublings: int, now: datetime) -> NextPoll:
        if self._is_stalled(lease, now):
            return self._stalled(now)
        gap = min(self.interval * 2 ** min(doublings, _MOST_DOUBLINGS), self._longest)
        return NextPoll(now + self._spread(gap), Tracking.WATCHING)

    def _is_stalled(self, lease: PollLease, now: datetime) -> bool:
        return now >= lease.first_seen_at + self.horizon

    def _stalled(self, now: datetime) -> NextPoll:
        return NextPoll(now + self._spread(STALLED_GAP), Tracking.STALLED)

    def _spread(self, gap: timedelta) -> timedelta:
        return gap * (1 - _SPREAD + 2 * _SPREAD * self.chance())


REFRESH_INTERVAL = timedelta(hours=1)
SHORTEST_INTERVAL = timedelta(minutes=1)

_SECONDS_BETWEEN_RUNS = 5.0

log = structlog.stdlib.get_logger(__name__)

Read = Callable[[], Awaitable[dict[str, str]]]
"""Returns the category of each model by its id. Raises `RivyaError`."""


class Categories:
    """The last known category of each model. A failed read changes nothing."""

    def __init__(self, read: Read, limiter: RateLimiter, clock: Clock) -> None:
        self._read = read
        self._limiter = limiter
        self._clock = clock
        self._known: dict[str, str] = {}
        self._tried_at: float | None = None
        self._wait = SHORTEST_INTERVAL
        self._met_unknown = False

    def of(self, model: str | None) -> str | None:
        """The model's category, None while it is not known."""
        category = self.known(model)
        if model is not None and category is None:
            self._met_unknown = True
        return category

    def known(self, model: str | None) -> str | None:
        """As `of`, without having the catalogue read again for a model that it lacks."""
        return self._known.get(model) if model is not None else None

    async def run_once(self) -> float:
        """Read the catalogue if that is due and the budget allows it; returns the seconds until the next run."""
        if not (self._is_due() and await self._limiter.acquire()):
            return _SECONDS_BETWEEN_RUNS
        self._tried_at, self._wait = self._clock.monotonic(), SHORTEST_INTERVAL
        try:
            self._known |= await self._read()  # keeps removed models: they may still have generations
        except RivyaError as error:
            log.info("models.unreadable", error=type(error).__name__)
            await self._limiter.record_error(error)
        else:
            self._wait, self._met_unknown = REFRESH_INTERVAL, False
        return _SECONDS_BETWEEN_RUNS

    def _is_due(self) -> bool:
        if self._tried_at is None:
            return True
        waited = timedelta(seconds=self._clock.monotonic() - self._tried_at)
        return waited >= (SHORTEST_INTERVAL if self._met_unknown else self._wait)
