"""How many requests may leave, and when: evenly spaced slots shared by all replicas, suspended by 429, 401 and 403."""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Self

REACH: Final = timedelta(seconds=1)
"""Slots are booked this far ahead: what a killed replica wastes."""
LEAD: Final = timedelta(seconds=0.1)
"""The first slot booked is this far ahead, so that the commit of the booking does not make it late."""
PUNCTUAL: Final = timedelta(milliseconds=20)
"""How late a request may leave without crowding others'."""

FIRST_BLOCK: Final = timedelta(seconds=5)
LONGEST_BLOCK: Final = timedelta(minutes=5)
LONGEST_RETRY_AFTER: Final = timedelta(hours=1)
SHORTEST_RETRY_AFTER: Final = timedelta(seconds=1)
PROBE_INTERVAL: Final = timedelta(minutes=5)

_UNAUTHORIZED: Final = 401
# Slots are 3 % further apart than the rate says: `rate` of them then span 1.03 s, which leaves 30 ms for lateness and
# for the network before any second sees more than `rate` requests.
_MARGIN: Final = 1.03
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
_FEWEST_PER_SECOND: Final = 500
"""What one process can do anyway; slots need not get wider than that, however many the rate makes of a second."""


def polls_at_once(rate: float) -> int:
    """How many requests of one process may be under way, so that it can use a rate (per second) by itself."""
    return max(_FEWEST_AT_ONCE, min(_MOST_AT_ONCE, round(rate * _SECONDS_OF_A_POLL)))


def polls_ahead(rate: float) -> int:
    """How many polls one process may have claimed beside those, which wait for their slots: what can be booked."""
    return min(_MOST_AHEAD, math.ceil(rate * REACH.total_seconds()))


def widest(rate: float) -> int:
    """How many slots in a row a process may take for one request when it can't use as many as the rate makes."""
    return max(1, round(rate / _FEWEST_PER_SECOND))


@dataclass(frozen=True, slots=True)
class Slot:
    """One request may leave between these two moments."""

    at: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Requests per second, and how many slots in a row each request of this process needs."""

    rate: float
    width: int = 1
    """More than one for a process that can't use as many: it leaves at any of them."""

    @property
    def step(self) -> timedelta:
        """From one slot to the next."""
        return timedelta(seconds=_MARGIN / self.rate)

    def slot(self, at: datetime) -> Slot:
        """The slot that begins at this moment."""
        return Slot(at, at + self.step * (self.width - 1) + PUNCTUAL)

    def moments(self, slot: Slot) -> list[datetime]:
        """When each of the slots begins that are taken in a row."""
        return [slot.at + self.step * number for number in range(self.width)]


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

    def room(self, now: datetime, pace: Pace, *, within: timedelta = REACH) -> int:
        """How many requests fit into the slots that are free and begin within this time."""
        left = now + within - self._first_slot(now, pace)
        return 0 if left < timedelta(0) else left // (pace.step * pace.width) + 1

    def book(self, count: int, now: datetime, pace: Pace) -> tuple[Self, list[Slot]]:
        """Take the next slots, for `count` requests."""
        first, each = self._first_slot(now, pace), pace.step * pace.width
        slots = [pace.slot(first + each * number) for number in range(count)]
        return replace(self, next_slot_at=first + each * count), slots

    def book_probe(self, now: datetime, pace: Pace) -> tuple[Self, Slot]:
        """Take the next slot for a probe. It may be late: nobody else is sending anything."""
        at = self._first_slot(now, pace)
        booked = replace(self, next_slot_at=at + pace.step, stopped_until=now + PROBE_INTERVAL)
        return booked, Slot(at, at + REACH)

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

    def _first_slot(self, now: datetime, pace: Pace) -> datetime:
        # No honest booking is that far ahead: it was made by a clock that has been set back since.
        if self.next_slot_at > now + REACH + pace.step * 16 + _CLOCK_SET_BACK:
            return now + LEAD
        return max(self.next_slot_at, now + LEAD)
