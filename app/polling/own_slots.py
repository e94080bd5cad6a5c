"""The slots that this process has booked and not used yet: a request that is late for its own takes the next; pure."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.polling.budget import PUNCTUAL, Slot


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave for one request in its slot; void as soon as Rivya refuses anything."""

    slot: Slot
    width: int
    refusals: int
    is_probe: bool = False


class OwnSlots:
    """In order; each is good for one request, which leaves within `PUNCTUAL` of it."""

    def __init__(self, step: timedelta) -> None:
        self._step = step
        self._moments: deque[datetime] = deque()

    def __len__(self) -> int:
        return len(self._moments)

    def add(self, moments: Iterable[datetime]) -> None:
        """They begin then, and are later than all that were booked before."""
        self._moments.extend(moments)

    def first(self, now: datetime) -> datetime | None:
        """When the first one that can still be used begins, or began; None where there is none.

        A moment that is too late for one slot and too early for the next is good for a request if both are ours and
        neither was used: it costs them both.
        """
        moments = self._moments
        while moments and moments[0] < now - PUNCTUAL:
            passed = moments.popleft()
            if moments and now < moments[0] <= passed + self._step:
                moments[0] = now
        return moments[0] if moments else None

    def use_first(self) -> datetime:
        """A request leaves at it."""
        return self._moments.popleft()

    def clear(self) -> None:
        """None of them may be used."""
        self._moments.clear()
