"""The slots that this process has booked and not used yet: a request that is late for its own takes the next; pure."""

from collections import deque
from collections.abc import Iterable
from datetime import datetime

from app.polling.budget import PUNCTUAL


class OwnSlots:
    """In order; each is good for one request, which leaves within `PUNCTUAL` of it."""

    def __init__(self) -> None:
        self._moments: deque[datetime] = deque()

    def __len__(self) -> int:
        return len(self._moments)

    def add(self, moments: Iterable[datetime]) -> None:
        """They begin then, and are later than all that were booked before."""
        self._moments.extend(moments)

    def first(self, now: datetime) -> datetime | None:
        """When the first one begins that can still be used, or began; None where there is none."""
        while self._moments and self._moments[0] < now - PUNCTUAL:
            self._moments.popleft()
        return self._moments[0] if self._moments else None

    def use_first(self) -> None:
        """A request leaves at it."""
        self._moments.popleft()

    def clear(self) -> None:
        """None of them may be used."""
        self._moments.clear()
