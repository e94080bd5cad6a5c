"""Makes values from Rivya safe to store: text, numbers of a credible size, times, JSON."""

import re
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from app.core.json_codec import dump_json, parse_json

LONGEST_NAME: Final = 200
LONGEST_ID: Final = 500
_MOST_ID_BYTES: Final = 1200  # an index of PostgreSQL holds entries of 2,700 bytes
LONGEST_REFERENCE: Final = 500
MOST_METADATA_BYTES: Final = 16 * 1024
_DEEPEST: Final = 200  # orjson writes 254 levels; the rest is for objects into which a value is put later
_LARGEST_AMOUNT: Final = 10**12
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def json_object(text: bytes) -> dict[str, Any] | None:
    """The members of a JSON object, None if the text is anything else."""
    try:
        value = parse_json(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def usable_name(value: object) -> str | None:
    """A text fit to be a name (printable, neither blank nor longer than `LONGEST_NAME`), or None."""
    if not isinstance(value, str) or len(value) > LONGEST_NAME or not value.isprintable() or not value.strip():
        return None
    return value


def usable_id(value: object) -> str | None:
    """A text fit to be an id (printable, neither blank nor longer than `LONGEST_ID`), or None."""
    if not isinstance(value, str) or len(value) > LONGEST_ID or not value.isprintable() or not value.strip():
        return None
    return value if len(value) <= LONGEST_NAME or len(value.encode()) <= _MOST_ID_BYTES else None


def usable_reference(value: object) -> str | None:
    """A text that must be returned unchanged (storable, neither empty nor too long), or None."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_REFERENCE or _UNSTORABLE.search(value):
        return None
    return value


def readable_text(value: object) -> str | None:
    """A text for people, cut to length, with U+FFFD for what can't be stored; None for any other type."""
    return _UNSTORABLE.sub("\ufffd", value[:LONGEST_REFERENCE]) if isinstance(value, str) else None


def plausible_amount(value: object) -> float | int | None:
    """A number of credits, or None for anything that isn't a number of a credible size."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST_AMOUNT:
        return None
    return value


def storable(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A JSON value in a form that every database and orjson can store; the same object if nothing changes.

    NUL and lone surrogates become U+FFFD, what is nested deeper than 200 levels becomes null.
    """
    try:
        text = dump_json(value)
    except (TypeError, ValueError, RecursionError):
        return _cleaned(value, _DEEPEST)
    return value if is_storable(text) else _cleaned(value, _DEEPEST)


def checked_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """`value`, a caller's metadata for a generation, if it can be stored unchanged. Raises `ValueError`."""
    if storable(value) != value:
        message = "must not contain NUL, nor nest more than 200 levels"
        raise ValueError(message)
    if len(dump_json(value)) > MOST_METADATA_BYTES:
        message = f"must be at most {MOST_METADATA_BYTES} bytes as JSON"
        raise ValueError(message)
    return value


def is_storable(text: bytes) -> bool:
    """Whether the value of a JSON text can certainly be stored unchanged."""
    return rb"\u0000" not in text and text.count(b"{") + text.count(b"[") <= _DEEPEST


def _cleaned(value: Any, levels: int) -> Any:  # noqa: ANN401
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if not isinstance(value, dict | list):
        return value
    if levels == 0:
        return None
    if isinstance(value, list):
        return [_cleaned(member, levels - 1) for member in value]
    return {_cleaned(name, 0): _cleaned(member, levels - 1) for name, member in value.items()}


_NUMBER: Final = re.compile(rb"\d{1,14}(?:\.\d{1,9})?")
_MILLISECONDS_FROM: Final = 1e11  # as seconds, that is the year 5138
_LONGEST: Final = 64
_YEARS: Final = range(1970, 3000)


def read_iso(text: object) -> datetime | None:
    """The UTC time in an ISO 8601 text, or None. A time without an offset is taken as UTC.

    Years outside 1970 to 2999 give None: arithmetic on them would overflow later.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        return None
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not UTC:  # which is what a final Z becomes
            time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return time if time.year in _YEARS else None


def read_unix_seconds(text: bytes) -> float | None:
    """A signature's timestamp in Unix seconds, or None unless it is Unix seconds, milliseconds or ISO 8601."""
    if _NUMBER.fullmatch(text):
        return unix_seconds(text)
    time = read_iso(text.decode("ascii", "replace"))
    return None if time is None else time.timestamp()


def unix_seconds(digits: bytes) -> float:
    """The seconds in a number of seconds, or of milliseconds where it is that large."""
    number = float(digits)
    return number if number < _MILLISECONDS_FROM else number / 1000
