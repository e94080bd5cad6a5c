"""What a process sees of the budget while it holds its lock."""

from dataclasses import dataclass
from datetime import datetime

from app.polling.budget import Budget, Pace


@dataclass(frozen=True, slots=True)
class Opening:
    """The locked budget, and how many requests it has room for."""

    budget: Budget
    now: datetime
    pace: Pace
    room: int
    is_probe: bool = False
