"""Read the times that Rivya and its signatures write: ISO 8601, Unix seconds and Unix milliseconds."""

import re
from datetime import UTC, datetime
from typing import Final

_NUMBER: Final = re.compile(rb"\d{1,14}(?:\.\d{1,9})?")
_MILLISECONDS_FROM: Final = 1e11  # as seconds, that is the year 5138
_LONGEST: Final = 64
_YEARS: Final = range(1970, 3000)


def read_iso(text: object) -> datetime | None:
    """Return the UTC time that an ISO 8601 text names, or None. A time without an offset is taken as UTC.

    Years outside 1970 to 2999 count as unreadable: arithmetic on them overflows somewhere downstream.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not UTC:  # which is what a final Z becomes
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if moment.year in _YEARS else None


def read_unix_seconds(text: bytes) -> float | None:
    """Return a signature's timestamp in Unix seconds, or None if it is in none of these notations."""
    if _NUMBER.fullmatch(text):
        return unix_seconds(text)
    moment = read_iso(text.decode("ascii", "replace"))
    return None if moment is None else moment.timestamp()


def unix_seconds(digits: bytes) -> float:
    """Return what a plain number of seconds, or of milliseconds where it is that large, says in seconds."""
    number = float(digits)
    return number if number < _MILLISECONDS_FROM else number / 1000
