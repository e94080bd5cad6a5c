"""How long what is settled is kept, and for how much longer a delivery is still recognised; pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

KEYS_KEPT: Final = timedelta(days=30)
"""For so long after its body is gone, an event that comes again is still known, and changes nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is older than these goes."""

    settled_before: datetime
    """Generations that were settled before this, and deliveries of none that came before it."""
    pruned_before: datetime
    """Deliveries whose bodies went before this."""


def limits(now: datetime, *, days: int) -> Limits | None:
    """The limits at `now`, what is settled being kept for `days`; None where all is kept (0)."""
    return Limits(now - timedelta(days=days), now - KEYS_KEPT) if days > 0 else None
