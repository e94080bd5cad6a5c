"""How wide the slots are that a process books: wider when it misses many, narrower when it misses few; pure."""

from typing import Final

_FEWEST: Final = 10
_MOST: Final = 200
_MANY: Final = 0.2
_FEW: Final = 0.02


class Tally:
    """Counts how many of the latest requests found no slot, and draws the conclusion."""

    def __init__(self, rate: float, *, widest: int) -> None:
        self.width = 1
        """How many slots in a row each request is to have."""
        self._widest = widest
        # About a second of slots: a process that was held up for a moment is not one that is too busy.
        self._enough = max(_FEWEST, min(_MOST, round(rate)))
        self._forget()

    def note(self, width: int, *, is_missed: bool) -> None:
        """A request with this width has found a slot, or none."""
        if width != self.width:
            return  # booked before the last conclusion
        self._seen += 1
        self._missed += is_missed
        if self._missed > self._enough * _MANY:
            self._conclude(min(self.width * 2, self._widest))
        elif self._seen == self._enough:
            self._conclude(max(self.width - 1, 1) if self._missed <= self._enough * _FEW else self.width)

    def _conclude(self, width: int) -> None:
        self.width = width
        self._forget()

    def _forget(self) -> None:
        self._seen = self._missed = 0
