"""What an event of a chat stream says: Rivya documents neither names nor data, so it is found by its shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from app.cli.calling.event_stream import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """All that was found in one event; mostly one of these."""

    piece: str = ""
    """More of the answer."""
    whole: str = ""
    """All of the answer."""
    session_id: str | None = None
    error: str | None = None
    """Why there is no more."""


def understood(event: Event) -> Said:
    """Find what an event says; one of a form never seen says nothing."""
    data = content_of(event)
    if not isinstance(data, Mapping):
        return Said(error=event.data if event.name == "error" else None)
    session_id = data.get("session_id")
    return Said(
        piece=_piece(data),
        whole=_text(_object(data, "message"), "content"),
        session_id=session_id if isinstance(session_id, str) else None,
        error=_error(event, data),
    )


def content_of(event: Event) -> object:
    """The data as JSON, or as text where they are none."""
    try:
        return orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return event.data


def whole_answer(completion: Mapping[str, Any]) -> str:
    """The answer in a completion that was not streamed."""
    return _text(_object(completion, "message"), "content")


def _piece(data: Mapping[str, Any]) -> str:
    choices = data.get("choices")
    if isinstance(choices, list):
        return "".join(_piece(choice) for choice in choices if isinstance(choice, Mapping))
    return _text(data, "delta") or _first_text(_object(data, "delta")) or _first_text(data)


def _first_text(data: Mapping[str, Any]) -> str:
    return _text(data, "content") or _text(data, "text")


def _error(event: Event, data: Mapping[str, Any]) -> str | None:
    error = data.get("error")
    if error is None and event.name != "error":
        return None
    named = error if isinstance(error, Mapping) else data
    return _text(named, "code") or _text(named, "message") or "unnamed"


def _object(data: Mapping[str, Any], member: str) -> Mapping[str, Any]:
    value = data.get(member)
    return value if isinstance(value, Mapping) else {}


def _text(data: Mapping[str, Any], member: str) -> str:
    value = data.get(member)
    return value if isinstance(value, str) else ""
