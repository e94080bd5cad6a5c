"""Renders Rivya's objects as text for people. Any member may be missing; unknown members are ignored."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, NoReturn

import typer

Render = Callable[[Mapping[str, Any]], str]


_SHOWN_AFTER: Final = 2.0
"""Seconds."""


@contextmanager
def shown_wait(text: str) -> Iterator[None]:
    """Show on standard error what is waited for, if the block takes long."""
    import asyncio

    timer = asyncio.get_running_loop().call_later(_SHOWN_AFTER, lambda: typer.echo(plain(f"waiting {text}"), err=True))
    try:
        yield
    finally:
        timer.cancel()


def print_json(document: object) -> None:
    """Print JSON in one line."""
    from app.core.records import dump_json

    typer.echo(dump_json(document).decode())


def show(document: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print the document, or the text that says the same."""
    if as_json:
        print_json(document)
    else:
        typer.echo(text)


def fail(message: str, *, status: int = 1) -> NoReturn:
    """End the command with this line on standard error. The status is 2 for invalid settings and arguments."""
    typer.echo(message, err=True)
    raise typer.Exit(status)


def items(response: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The objects in a list response."""
    data = response.get("data")
    return [item for item in data if isinstance(item, Mapping)] if isinstance(data, Sequence) else []


def member(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object in a member; an empty one if there is none."""
    value = document.get(name)
    return value if isinstance(value, Mapping) else {}


def models(response: Mapping[str, Any]) -> str:
    """The models as a table."""
    names = ("MODEL", "NAME", "CATEGORY", "CREDITS", "STATUS")
    keys = ("id", "display_name", "category", "base_credits", "api_status")
    return table(names, ([model.get(key) for key in keys] for model in items(response)))


def generations(response: Mapping[str, Any]) -> str:
    """A list of generations as a table."""
    names = ("GENERATION", "STATUS", "MODEL", "SUBMITTED BY", "CREDITS", "FIRST SEEN", "REQUEST")
    return table(names, map(_generation_row, items(response)))


def generation(document: Mapping[str, Any]) -> str:
    """One generation, one member per line."""
    tracking, error = member(document, "tracking"), member(document, "error")
    urls = member(document, "result").get("urls")
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


def transitions(response: Mapping[str, Any]) -> str:
    """The history of a generation as a table."""
    keys = ("number", "from", "to", "source", "event_id", "recorded_at")
    return _list(("NUMBER", "FROM", "TO", "SOURCE", "EVENT", "RECORDED"), keys, response)


def deliveries(response: Mapping[str, Any]) -> str:
    """A list of deliveries as a table."""
    keys = ("event_id", "event_type", "generation_id", "outcome", "attempts", "received_at")
    return _list(("EVENT", "TYPE", "GENERATION", "OUTCOME", "ATTEMPTS", "RECEIVED"), keys, response)


def replayed(response: Mapping[str, Any]) -> str:
    """The results of a replay, one per line, and their number."""
    lines = [f"{item.get('event_id')}: was {item.get('outcome')}, {item.get('effect')}" for item in items(response)]
    done = "replayed" if response.get("applied") else "would be replayed; nothing was written, --apply writes"
    more = ["more are chosen: go on with --since"] if response.get("more") else []
    return "\n".join([*map(plain, lines), f"{len(lines)} {done}", *more])


def endpoint(document: Mapping[str, Any]) -> str:
    """Our endpoint, one member per line, and its history."""
    known = {name: value for name, value in document.items() if name not in ("object", "history", "secrets")}
    history = [f"  {_words(entry, ('recorded_at', 'event', 'detail'))}" for entry in items(member(document, "history"))]
    return "\n".join([details(known), "", "history, newest first:", *history])


def orphans(response: Mapping[str, Any]) -> str:
    """The endpoints that a lost database left at Rivya, as a table."""
    if not items(response):
        return "none: every endpoint at Rivya with our name and host is in the database"
    return _list(("ENDPOINT", "STATUS", "CREATED", "URL"), ("id", "status", "created_at", "url"), response)


def removed(document: Mapping[str, Any]) -> str:
    """An orphan that was removed."""
    return f"{cell(document.get('id'))}: removed at Rivya"


def webhooks(response: Mapping[str, Any]) -> str:
    """A list of webhooks as a table."""
    names = ("WEBHOOK", "STATUS", "FAILURES", "LAST SUCCESS", "TOKEN", "NAME", "URL")
    return _list(names, ("id", "status", "failure_count", "last_success_at", "token", "name", "url"), response)


def webhook(document: Mapping[str, Any]) -> str:
    """One webhook, one member per line."""
    types = document.get("event_types")
    listed = ", ".join(map(str, types)) if isinstance(types, list) else None
    return details({**document, "object": None, "event_types": listed})


def _list(names: Sequence[str], keys: Sequence[str], response: Mapping[str, Any]) -> str:
    return table(names, ([item.get(key) for key in keys] for item in items(response)))


def _words(document: Mapping[str, Any], keys: Sequence[str]) -> str:
    return "  ".join(cell(document[key]) for key in keys if document.get(key) is not None)


def event(document: Mapping[str, Any]) -> str:
    """One event of the feed as a line."""
    about, transition = member(document, "generation"), member(document, "transition")
    shown = (document.get("created_at"), document.get("type"), about.get("id"), about.get("model"))
    return "  ".join(cell(value) for value in (*shown, transition.get("source")))


def usage(response: Mapping[str, Any]) -> str:
    """The sums of usage as a table."""
    names = ("DAY", "SUBMITTED BY", "MODEL", "GENERATIONS", "OPEN", "RESERVED", "FINAL")
    keys = ("day", "submitted_by", "model", "generations", "open", "reserved_credits", "final_credits")
    return table(names, ([line.get(key) for key in keys] for line in items(response)))


def file(document: Mapping[str, Any]) -> str:
    """One uploaded file: every text and number, because few members are documented."""
    return details({name: value for name, value in document.items() if isinstance(value, str | int | float)})


def _generation_row(document: Mapping[str, Any]) -> list[object]:
    tracking = member(document, "tracking")
    first_seen_at = tracking.get("first_seen_at") or document.get("created_at")
    first = [document.get(key) for key in ("id", "status", "model")]
    return [*first, tracking.get("submitted_by"), _credits(document), first_seen_at, tracking.get("client_request_id")]


def _credits(document: Mapping[str, Any]) -> object:
    final, reserved = document.get("final_credits"), document.get("reserved_credits")
    return final if final is not None or reserved is None else f"{cell(reserved)} reserved"


def time(at: datetime | None) -> str:
    """A time to the second."""
    return "never" if at is None else f"{at:%Y-%m-%d %H:%M:%SZ}"


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest cell, below their names."""
    lines = [list(names), *([cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def details(members: Mapping[str, object]) -> str:
    """One member per line; members that are None are left out."""
    document = {name: value for name, value in members.items() if value is not None}
    width = max(map(len, document), default=0)
    return "\n".join(f"{name.ljust(width)}  {cell(value)}" for name, value in document.items())


def cell(value: object) -> str:
    """A value as one line of printable text."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return plain(str(value))


def plain(text: str, *, keep: str = "") -> str:
    """`text` with control characters replaced, except those in `keep`, so that it can't control the terminal."""
    return "".join(mark if mark.isprintable() or mark in keep else "\N{REPLACEMENT CHARACTER}" for mark in text)
