"""When a clock that says something else is believed: not at once, a step may be a mistake soon put right; pure."""

from dataclasses import dataclass
from typing import Final

STEP: Final = 1.0
"""Seconds; clocks that are less apart agree."""
HOLD: Final = 60.0
"""Seconds for which another clock has to say the same before it is believed."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """Another clock has been so many seconds ahead of ours since then."""

    ahead: float
    since: float


def doubted(doubt: Doubt | None, ahead: float, *, at: float) -> Doubt | None:
    """What is held against our clock when the other is `ahead`; None while they agree."""
    if abs(ahead) < STEP:
        return None
    if doubt is None or abs(ahead - doubt.ahead) >= STEP:
        return Doubt(ahead, at)
    return doubt


def is_believed(doubt: Doubt | None, *, at: float) -> bool:
    """The other clock has said the same for long enough."""
    return doubt is not None and at - doubt.since >= HOLD
