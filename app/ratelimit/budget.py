"""How many requests may leave, and when: evenly spaced slots shared by all replicas, suspended by 429, 401 and 403."""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Self

from app.core.errors import HealthCheck

HORIZON: Final = timedelta(seconds=1)
"""Slots are reserved this far ahead: what a killed replica wastes."""
LEAD_TIME: Final = timedelta(seconds=0.1)
"""The first slot reserved is this far ahead, so that the commit of the reservation does not make it late."""
MAX_LATENESS: Final = timedelta(milliseconds=40)
"""How late for its slot a request may leave; later, it is not sent."""

FIRST_BLOCK: Final = timedelta(seconds=5)
LONGEST_BLOCK: Final = timedelta(minutes=5)
LONGEST_RETRY_AFTER: Final = timedelta(hours=1)
SHORTEST_RETRY_AFTER: Final = timedelta(seconds=1)
PROBE_INTERVAL: Final = timedelta(minutes=5)

_UNAUTHORIZED: Final = 401
# Slots are 5 % further apart than the rate says: `rate` of them then span 1.05 s, which leaves 10 ms for the network
# beside MAX_LATENESS before any second sees more than `rate` requests. 95 % of the rate can be used.
_MARGIN: Final = 1.05
_CLOCK_SET_BACK: Final = timedelta(minutes=1)
_SKEW: Final = timedelta(seconds=0.9)
"""How far the clocks of two replicas may be apart; less than the shortest pause."""
_SPREAD: Final = 0.2
_MOST_DOUBLINGS: Final = 6


_FEWEST_AT_ONCE: Final = 16
_MOST_AT_ONCE: Final = 128
_MOST_AHEAD: Final = 256
_SECONDS_OF_A_POLL: Final = 0.3
"""From the claim to the commit, with Rivya's answer in 50 ms and the lead: measured with `make bench ONLY=polling`."""


def polls_at_once(rate: float) -> int:
    """How many requests of one process may be under way, so that it can use a rate (per second) by itself."""
    return max(_FEWEST_AT_ONCE, min(_MOST_AT_ONCE, round(rate * _SECONDS_OF_A_POLL)))


def polls_ahead(rate: float) -> int:
    """How many polls one process may have claimed beside those, which wait for their slots."""
    return min(_MOST_AHEAD, math.ceil(rate * HORIZON.total_seconds()))


def slot_spacing(rate: float) -> timedelta:
    """The time from one slot to the next, for a rate in requests per second."""
    return timedelta(seconds=_MARGIN / rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The row of `poll_budget`. Every method is a decision; none changes anything."""

    next_slot_at: datetime
    blocked_until: datetime | None = None
    blocks: int = 0
    stopped_status: int | None = None
    stopped_reason: str | None = None
    stopped_key: str | None = None
    stopped_until: datetime | None = None

    def is_blocked(self, now: datetime) -> bool:
        """Rivya asked for a pause that isn't over."""
        # No pause is longer than an hour: one that ends later was written before the clock was set back.
        return self.blocked_until is not None and now < self.blocked_until <= now + LONGEST_RETRY_AFTER + _SKEW

    def is_stopped(self, key: str) -> bool:
        """Rivya refuses polls under this key (its fingerprint)."""
        return self.stopped_key == key

    def is_key_refused(self, key: str) -> bool:
        """Rivya refuses whatever is asked under this key."""
        return self.is_stopped(key) and self.stopped_status == _UNAUTHORIZED

    def may_probe(self, now: datetime) -> bool:
        """It is time to see whether a refused key has become good."""
        return self.stopped_until is None or not now < self.stopped_until <= now + PROBE_INTERVAL + _SKEW

    def room(self, now: datetime, spacing: timedelta, *, within: timedelta = HORIZON) -> int:
        """How many slots are free and begin within this time."""
        left = now + within - self._first_slot(now, spacing)
        return 0 if left < timedelta(0) else left // spacing + 1

    def reserve(self, count: int, now: datetime, spacing: timedelta) -> tuple[Self, list[datetime]]:
        """Take the next `count` slots; returns when each begins."""
        first = self._first_slot(now, spacing)
        return replace(self, next_slot_at=first + spacing * count), [first + spacing * n for n in range(count)]

    def reserve_probe(self, now: datetime, spacing: timedelta) -> tuple[Self, datetime]:
        """Take the next slot for a probe of a refused key; returns when it begins."""
        reserved, [at] = self.reserve(1, now, spacing)
        return replace(reserved, stopped_until=now + PROBE_INTERVAL), at

    def rate_limited(self, now: datetime, *, retry_after: float | None, chance: float) -> Self:
        """After a 429: pause as long as Rivya says (1 second to 1 hour), else 5 seconds, doubling to 5 minutes."""
        # Several requests may have been under way when the pause began: that is one refusal, not several.
        blocks = self.blocks if self.is_blocked(now) else self.blocks + 1
        if retry_after is not None:
            asked = now + max(SHORTEST_RETRY_AFTER, min(timedelta(seconds=retry_after), LONGEST_RETRY_AFTER))
            return replace(self, blocked_until=max(asked, self.blocked_until or asked), blocks=blocks)
        if self.is_blocked(now):
            return self
        pause = min(FIRST_BLOCK * 2 ** min(self.blocks, _MOST_DOUBLINGS), LONGEST_BLOCK)
        return replace(self, blocked_until=now + pause * (1 + _SPREAD * chance), blocks=blocks)

    def stopped(self, now: datetime, *, key: str, status: int, reason: str) -> Self:
        """After a 401 or 403: no more requests, but for one probe every 5 minutes."""
        return replace(
            self,
            stopped_key=key,
            stopped_status=status,
            stopped_reason=reason,
            stopped_until=now + PROBE_INTERVAL,
        )

    def answered(self, now: datetime) -> Self:
        """Rivya answered: it has stopped refusing for haste, unless the pause it asked for is still on."""
        return self if self.is_blocked(now) else replace(self, blocked_until=None, blocks=0)

    def unblocked(self) -> Self:
        """The pause has lasted as long as Rivya asked."""
        return replace(self, blocked_until=None)

    def resumed(self) -> Self:
        """The key is good."""
        return replace(self, stopped_key=None, stopped_status=None, stopped_reason=None, stopped_until=None)

    def _first_slot(self, now: datetime, spacing: timedelta) -> datetime:
        # No honest reservation is that far ahead: it was made by a clock that has been set back since.
        if self.next_slot_at > now + HORIZON + spacing * 16 + _CLOCK_SET_BACK:
            return now + LEAD_TIME
        return max(self.next_slot_at, now + LEAD_TIME)


# How polling stands, in words for the operator; pure.


_NAME = "polling"


def describe_status(budget: Budget | None, key: str, *, now: datetime, rate: float) -> HealthCheck:
    """What `/readyz` and `check` show; deliveries are taken all the same, so it is never required."""
    if budget is not None and budget.is_stopped(key):
        return HealthCheck(_NAME, ok=False, detail=_stopped(budget, key), is_required=False)
    if budget is not None and budget.is_blocked(now):
        until = f"{budget.blocked_until:%H:%M:%S} UTC"
        return HealthCheck(_NAME, ok=True, detail=f"paused until {until}, as Rivya asked (429)", is_required=False)
    return HealthCheck(_NAME, ok=True, detail=f"at most {rate:g} requests per second", is_required=False)


def _stopped(budget: Budget, key: str) -> str:
    if budget.is_key_refused(key):
        what = "Rivya refuses RIVYA_API_KEY"
        remedy = "set a valid key and restart"
    else:
        what = "Rivya refuses to tell generations to RIVYA_API_KEY"
        remedy = "give the key the scope generations:read, or set another key, and restart"
    return f"stopped: {what} ({budget.stopped_reason}); {remedy}"
