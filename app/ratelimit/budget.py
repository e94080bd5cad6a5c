"""The rate limit as pure decisions: evenly spaced slots for all replicas, suspended by 429, 401 and 403."""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Self

from app.core.errors import HealthCheck

HORIZON: Final = timedelta(seconds=1)
"""Slots are reserved at most this far ahead; a killed replica wastes as many."""
LEAD_TIME: Final = timedelta(seconds=0.1)
"""The first slot of a reservation is at least this far ahead, so that its commit does not make it late."""
MAX_LATENESS: Final = timedelta(milliseconds=40)
"""A request that would be sent later after its slot than this is not sent."""

FIRST_BLOCK: Final = timedelta(seconds=5)
LONGEST_BLOCK: Final = timedelta(minutes=5)
LONGEST_RETRY_AFTER: Final = timedelta(hours=1)
SHORTEST_RETRY_AFTER: Final = timedelta(seconds=1)
PROBE_INTERVAL: Final = timedelta(minutes=5)

_UNAUTHORIZED: Final = 401
# Slots are 5 % further apart than the rate says: `rate` of them then span 1.05 s, which leaves 10 ms for the network
# beside MAX_LATENESS, so that no second sees more than `rate` requests. 95 % of the rate can be used.
_MARGIN: Final = 1.05
_CLOCK_SET_BACK: Final = timedelta(minutes=1)
_SKEW: Final = timedelta(seconds=0.9)
"""The greatest difference between the clocks of two replicas; less than the shortest pause."""
_SPREAD: Final = 0.2
_MOST_DOUBLINGS: Final = 6

_FEWEST_AT_ONCE: Final = 16
_MOST_CLAIMED: Final = 512
_SECONDS_OF_A_POLL: Final = 0.6
"""From opening a connection, 0.2 seconds before the slot, to the commit; a response may take 0.3 seconds."""
_FEWER_AFTER_MISSED: Final = 2


def polls_at_once(rate: float) -> int:
    """The most polls that one process runs at once, so that it can use the rate (per second) alone."""
    return max(_FEWEST_AT_ONCE, min(_MOST_CLAIMED, round(rate * _SECONDS_OF_A_POLL)))


def polls_ahead(rate: float) -> int:
    """The most polls beside those that one process claims ahead, to wait for their slots."""
    return min(_MOST_CLAIMED - polls_at_once(rate), math.ceil(rate * HORIZON.total_seconds()))


class ClaimWindow:
    """How many polls one process may have claimed: it follows the answers, like TCP's congestion window.

    Polls that are claimed faster than they can be sent would all miss their slots, and none would ever be sent. At a
    rate that a process can always keep up with, the number stays the same: polls that were late once, because the
    process had to wait for the processor, are no reason to leave the following slots unused.
    """

    def __init__(self, most: int, *, rate: float) -> None:
        self._most = most
        is_slow = rate * MAX_LATENESS.total_seconds() <= _FEWEST_AT_ONCE
        self._fewest = most if is_slow else min(_FEWEST_AT_ONCE, most)
        self.size = most

    def adapt(self, *, was_sent: bool) -> None:
        """One more after a poll that was sent, two fewer after one that was given back."""
        change = 1 if was_sent else -_FEWER_AFTER_MISSED
        self.size = max(self._fewest, min(self._most, self.size + change))


def slot_spacing(rate: float) -> timedelta:
    """The time from one slot to the next, for a rate in requests per second."""
    return timedelta(seconds=_MARGIN / rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The row of `poll_budget`. Methods return a changed copy, or answer a question."""

    next_slot_at: datetime
    blocked_until: datetime | None = None
    blocks: int = 0
    stopped_status: int | None = None
    stopped_reason: str | None = None
    stopped_key: str | None = None
    stopped_until: datetime | None = None

    def is_blocked(self, now: datetime) -> bool:
        """Whether a pause that Rivya asked for is not over."""
        # No pause is longer than an hour: one that ends later was written before the clock was set back.
        return self.blocked_until is not None and now < self.blocked_until <= now + LONGEST_RETRY_AFTER + _SKEW

    def is_stopped(self, key: str) -> bool:
        """Whether Rivya refuses polls with this key; `key` is its fingerprint."""
        return self.stopped_key == key

    def is_key_refused(self, key: str) -> bool:
        """Whether Rivya refuses every request with this key."""
        return self.is_stopped(key) and self.stopped_status == _UNAUTHORIZED

    def may_probe(self, now: datetime) -> bool:
        """Whether a probe is due that checks if a refused key works again."""
        return self.stopped_until is None or not now < self.stopped_until <= now + PROBE_INTERVAL + _SKEW

    def capacity(self, now: datetime, spacing: timedelta, *, within: timedelta = HORIZON) -> int:
        """The number of free slots that begin within this time; none during a pause that Rivya asked for."""
        left = now + within - self._first_slot(now, spacing)
        return 0 if self.is_blocked(now) or left < timedelta(0) else left // spacing + 1

    def reserve(self, count: int, now: datetime, spacing: timedelta) -> tuple[Self, list[datetime]]:
        """The budget without the next `count` slots, and when each of them begins."""
        first = self._first_slot(now, spacing)
        return replace(self, next_slot_at=first + spacing * count), [first + spacing * n for n in range(count)]

    def reserve_probe(self, now: datetime, spacing: timedelta) -> tuple[Self, datetime]:
        """The budget without the next slot, taken for a probe of a refused key, and when it begins."""
        reserved, [at] = self.reserve(1, now, spacing)
        return replace(reserved, stopped_until=now + PROBE_INTERVAL), at

    def rate_limited(self, now: datetime, *, retry_after: float | None, chance: float) -> Self:
        """After a 429: pause as long as Rivya says (1 second to 1 hour), else 5 seconds, doubling to 5 minutes."""
        # Several requests may have been under way when the pause began: they count as one 429.
        blocks = self.blocks if self.is_blocked(now) else self.blocks + 1
        if retry_after is not None:
            asked = now + max(SHORTEST_RETRY_AFTER, min(timedelta(seconds=retry_after), LONGEST_RETRY_AFTER))
            return replace(self, blocked_until=max(asked, self.blocked_until or asked), blocks=blocks)
        if self.is_blocked(now):
            return self
        pause = min(FIRST_BLOCK * 2 ** min(self.blocks, _MOST_DOUBLINGS), LONGEST_BLOCK)
        return replace(self, blocked_until=now + pause * (1 + _SPREAD * chance), blocks=blocks)

    def stopped(self, now: datetime, *, key: str, status: int, reason: str) -> Self:
        """After a 401 or 403: no more requests except one probe every 5 minutes."""
        until = now + PROBE_INTERVAL
        return replace(self, stopped_key=key, stopped_status=status, stopped_reason=reason, stopped_until=until)

    def answered(self, now: datetime) -> Self:
        """After a success: the count of 429 answers in a row starts again, unless a pause is not over."""
        return self if self.is_blocked(now) else replace(self, blocked_until=None, blocks=0)

    def unblocked(self) -> Self:
        """After the pause that Rivya asked for."""
        return replace(self, blocked_until=None)

    def resumed(self) -> Self:
        """After a success with the refused key."""
        return replace(self, stopped_key=None, stopped_status=None, stopped_reason=None, stopped_until=None)

    def _first_slot(self, now: datetime, spacing: timedelta) -> datetime:
        # No valid reservation is that far ahead: it was made by a clock that was set back since.
        if self.next_slot_at > now + HORIZON + spacing * 16 + _CLOCK_SET_BACK:
            return now + LEAD_TIME
        return max(self.next_slot_at, now + LEAD_TIME)


_REMEDY = "Rivya refuses RIVYA_API_KEY: set a valid key with the scope generations:read, and restart"


def describe_status(budget: Budget | None, key: str, *, now: datetime, rate: float) -> HealthCheck:
    """The state of polling for `/readyz` and `check`; never required, because deliveries are accepted all the same."""
    is_stopped, detail = False, f"at most {rate:g} requests per second"
    if budget is not None and budget.is_stopped(key):
        what, remedy = "refuses RIVYA_API_KEY", "set a valid key and restart"
        if not budget.is_key_refused(key):
            what = "refuses to tell generations to RIVYA_API_KEY"
            remedy = "give the key the scope generations:read, or set another key, and restart"
        is_stopped, detail = True, f"stopped: Rivya {what} ({budget.stopped_reason}); {remedy}"
    elif budget is not None and budget.is_blocked(now):
        detail = f"paused until {budget.blocked_until:%H:%M:%S} UTC, as Rivya asked (429)"
    return HealthCheck("polling", ok=not is_stopped, detail=detail, is_required=False, remedy=_REMEDY)
