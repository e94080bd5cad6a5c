"""The latest moments for which a poll can have been scheduled: what waits for longer was written by another clock."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """By what became of the last poll."""

    watched: datetime
    failing: datetime
    """For a watched generation whose last poll brought nothing."""
    stalled: datetime
