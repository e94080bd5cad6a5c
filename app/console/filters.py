"""How templates write values: times, numbers, durations, and links that can be followed safely."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, urlsplit

import orjson

from app.core.records import dump_json

_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"))


def iso(time: datetime) -> str:
    """`2026-05-10T12:00:00Z`, for programs."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc(time: datetime) -> str:
    """`2026-05-10 12:00:00 UTC`, for people."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def number(value: float) -> str:
    """`value` for people, with commas: `12,345` or `1.5`."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}".rstrip("0")


def seconds(value: float) -> str:
    """A duration of this many seconds in the two largest units: `2 h 5 min`, `1.3 s`."""
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    parts, rest = [], round(value)
    for size, unit in _UNITS:
        if rest >= size:
            parts.append(f"{rest // size} {unit}")
            rest %= size
    return " ".join(parts[:2])


def web_url(value: object) -> str | None:
    """`value` if it is an http or https URL, else None: nothing else from outside becomes a link."""
    text = str(value)
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    return text if parts.scheme in ("http", "https") and parts.hostname else None


def segment(value: object) -> str:
    """`value` as one segment of a path of ours."""
    return quote(str(value), safe="")


def pretty(value: object) -> str:
    """JSON to be read; on one line where it nests too deeply, or has integers of more than 64 bits."""
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()
    except orjson.JSONEncodeError:
        return dump_json(value).decode()


def words(name: str) -> str:
    """`callbacks_missed` as `Callbacks missed`."""
    return name.replace("_", " ").capitalize()


FILTERS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {function.__name__: function for function in (iso, utc, number, seconds, web_url, segment, words)}
)
