"""From when to when usage is summed: what was asked for, completed, and refused where it makes no sense; pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.core.errors import ServiceError

LONGEST = timedelta(days=366)
HOUR = timedelta(hours=1)
USUAL = timedelta(days=30)


class WindowInvalid(ServiceError):
    """No time, or too much of it."""

    status = 400
    code = "validation_failed"


@dataclass(frozen=True, slots=True)
class Window:
    """From `first` on and before `end`: whole hours, but for an end that is now."""

    first: datetime
    end: datetime

    @property
    def last_hour_ends(self) -> datetime:
        """The end of the hour in which the window ends: of the current hour, all that there is belongs to it."""
        hour = hour_of(self.end)
        return hour if hour == self.end else hour + HOUR


def window(first: datetime | None, end: datetime | None, *, now: datetime) -> Window:
    """Complete a window: it ends now, and begins with the day 30 days before its end.

    Raises `WindowInvalid`, also for what is no whole hour in UTC: what is summed is not taken apart again.
    """
    for name, moment in (("from", first), ("to", end)):
        if moment is not None and moment != hour_of(moment):
            raise WindowInvalid(f"{name}: must be a day or a whole hour in UTC; usage is summed by the hour.")
    end = end if end is not None else now
    if first is None:
        first = _usual_beginning(end)
    if first >= end:
        raise WindowInvalid("from: must be before to.")
    if end - first > LONGEST:
        raise WindowInvalid(f"from, to: must not be more than {LONGEST.days} days apart.")
    return Window(first, end)


def _usual_beginning(end: datetime) -> datetime:
    try:
        return (end - USUAL).replace(hour=0, minute=0, second=0, microsecond=0)
    except OverflowError:
        raise WindowInvalid(f"to: must leave room for the {USUAL.days} days before it, or come with a from.") from None


def hour_of(moment: datetime) -> datetime:
    """The beginning of its hour. Of hours in UTC, as `moment` has to be."""
    return moment.replace(minute=0, second=0, microsecond=0)
