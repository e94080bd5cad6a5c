"""What of Rivya's objects a person is shown; any member may be missing, and new ones are no surprise."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def items_of(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The objects of a list."""
    data = answer.get("data")
    return [item for item in data if isinstance(item, Mapping)] if isinstance(data, Sequence) else []


def models(answer: Mapping[str, Any]) -> str:
    """The catalogue as a table."""
    names = ("MODEL", "NAME", "CATEGORY", "CREDITS", "STATUS")
    members = ("id", "display_name", "category", "base_credits", "api_status")
    return table(names, ([model.get(member) for member in members] for model in items_of(answer)))


def generations(answer: Mapping[str, Any]) -> str:
    """A list of generations as a table."""
    names = ("GENERATION", "STATUS", "MODEL", "SUBMITTED BY", "CREDITS", "FIRST SEEN", "REQUEST")
    return table(names, map(_generation_row, items_of(answer)))


def generation(document: Mapping[str, Any]) -> str:
    """One generation, a member a line."""
    tracking, error = _object(document, "tracking"), _object(document, "error")
    urls = _object(document, "result").get("urls")
    results = {f"result {n}": url for n, url in enumerate(urls if isinstance(urls, list) else [], start=1)}
    return details(
        {
            "generation": document.get("id"),
            "status": document.get("status"),
            "model": document.get("model"),
            "credits": _credits(document),
            "submitted by": tracking.get("submitted_by"),
            "request": tracking.get("client_request_id"),
            "first seen": tracking.get("first_seen_at"),
            "settled": tracking.get("settled_at"),
            "settled by": tracking.get("settled_by"),
            "error": f"{error.get('code')}: {error.get('message')}" if error else None,
            **results,
        }
    )


def usage(answer: Mapping[str, Any]) -> str:
    """Sums as a table."""
    names = ("DAY", "SUBMITTED BY", "MODEL", "GENERATIONS", "OPEN", "RESERVED", "FINAL")
    members = ("day", "submitted_by", "model", "generations", "open", "reserved_credits", "final_credits")
    return table(names, ([line.get(member) for member in members] for line in items_of(answer)))


def file(document: Mapping[str, Any]) -> str:
    """One uploaded file: every plain member, since few are documented."""
    return details({name: value for name, value in document.items() if isinstance(value, str | int | float)})


def _generation_row(document: Mapping[str, Any]) -> list[object]:
    tracking = _object(document, "tracking")
    first_seen_at = tracking.get("first_seen_at") or document.get("created_at")
    named = [document.get(member) for member in ("id", "status", "model")]
    return [*named, tracking.get("submitted_by"), _credits(document), first_seen_at, tracking.get("client_request_id")]


def _credits(document: Mapping[str, Any]) -> object:
    final, reserved = document.get("final_credits"), document.get("reserved_credits")
    return final if final is not None or reserved is None else f"{cell(reserved)} reserved"


def _object(document: Mapping[str, Any], member: str) -> Mapping[str, Any]:
    value = document.get(member)
    return value if isinstance(value, Mapping) else {}


# Tables and details for people, in plain text; nothing that came from outside can move their cursor.


_NOTHING = "-"


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest cell, their names above."""
    lines = [list(names), *([cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def details(members: Mapping[str, object]) -> str:
    """One thing, a member a line; what is unknown is left out."""
    document = {name: value for name, value in members.items() if value is not None}
    width = max(map(len, document), default=0)
    return "\n".join(f"{name.ljust(width)}  {cell(value)}" for name, value in document.items())


def cell(value: object) -> str:
    """A value in one line of printable text."""
    if value is None or value == "":
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return plain(str(value))


def plain(text: str, *, keep: str = "") -> str:
    """`text` without control characters, but for those in `keep`: a terminal would obey them."""
    return "".join(mark if mark.isprintable() or mark in keep else "\N{REPLACEMENT CHARACTER}" for mark in text)
