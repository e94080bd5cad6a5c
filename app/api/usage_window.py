"""From when to when usage is summed: what was asked for, completed, and refused where it makes no sense; pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.core.errors import ServiceError

LONGEST = timedelta(days=366)
USUAL = timedelta(days=30)


class WindowInvalid(ServiceError):
    """No time, or too much of it."""

    status = 400
    code = "validation_failed"


@dataclass(frozen=True, slots=True)
class Window:
    """From `first` on and before `end`."""

    first: datetime
    end: datetime


def window(first: datetime | None, end: datetime | None, *, now: datetime) -> Window:
    """Complete a window: it ends now, and begins with the day 30 days before its end. Raises `WindowInvalid`."""
    end = end if end is not None else now
    if first is None:
        first = (end - USUAL).replace(hour=0, minute=0, second=0, microsecond=0)
    if first >= end:
        raise WindowInvalid("from: must be before to.")
    if end - first > LONGEST:
        raise WindowInvalid(f"from, to: must not be more than {LONGEST.days} days apart.")
    return Window(first, end)
