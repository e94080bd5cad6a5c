"""One chat turn: the answer as a whole, or as it is streamed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import typer
from httpx_sse import ServerSentEvent

from app.cli.client.http import Receiver, local_failure
from app.cli.client.output import items, member, plain, print_json

_KEEP = "\n\t"


async def choose_model(receiver: Receiver, session: str | None) -> str:
    """The session's model, else the first available chat model. Raises `CallFailed`."""
    if session is not None:
        model = (await receiver.get("chat", "sessions", session)).get("model")
        if isinstance(model, str):
            return model
    for item in items(await receiver.get("models")):
        if item.get("category") == "chat" and item.get("api_status", "available") == "available":
            return str(item.get("id"))
    raise local_failure("no_chat_model", "no model of the catalogue chats; name one with --model")


async def print_answer(receiver: Receiver, body: dict[str, Any], *, as_json: bool) -> None:
    """Send `body` and print the complete answer. Raises `CallFailed`."""
    document = await receiver.post("chat", "completions", body=body)
    if as_json:
        print_json(document)
        return
    typer.echo(plain(complete_answer(document), keep=_KEEP))
    _print_session(document.get("session_id"))


async def print_stream(receiver: Receiver, body: dict[str, Any], *, as_json: bool) -> None:
    """Send `body` and print the answer as it arrives, or its events as JSON. Raises `CallFailed`."""
    has_printed, complete, session_id = False, "", None
    async for event in receiver.stream("chat", "completions", "stream", body=body):
        parsed = parse_event(event)
        if as_json:
            print_json({"event": None if event.event == "message" else event.event, "data": _data(event)})
        elif parsed.piece:
            typer.echo(plain(parsed.piece, keep=_KEEP), nl=False)
        if parsed.error is not None:
            raise local_failure("stream_failed", f"the stream ended with an error: {parsed.error}")
        has_printed = has_printed or bool(parsed.piece)
        complete = parsed.complete or complete
        session_id = parsed.session_id or session_id
    if as_json:
        return
    if not has_printed and not complete:
        raise local_failure("stream_not_understood", "the stream ended, and no text was found in it; --json shows it")
    typer.echo("" if has_printed else plain(complete, keep=_KEEP))
    _print_session(session_id)


def _print_session(session_id: object) -> None:
    if isinstance(session_id, str):
        typer.echo(f"session: {plain(session_id)}", err=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatEvent:
    """The content of one event of a chat stream; most events have one of these members."""

    piece: str = ""
    """The next part of the answer."""
    complete: str = ""
    """The complete answer."""
    session_id: str | None = None
    error: str | None = None
    """Why the stream ends early."""


def parse_event(event: ServerSentEvent) -> ChatEvent:
    """Find the content of an event by its shape, since Rivya documents neither names nor data of events."""
    data = _data(event)
    if not isinstance(data, Mapping):
        return ChatEvent(error=(event.data or "unnamed") if event.event == "error" else None)
    return ChatEvent(
        piece=_piece(data),
        complete=complete_answer(data),
        session_id=_text(data, "session_id") or None,
        error=_error(event, data),
    )


def complete_answer(completion: Mapping[str, Any]) -> str:
    """The answer in a completion; empty if it has none."""
    return _text(member(completion, "message"), "content")


def _data(event: ServerSentEvent) -> object:
    """The data as JSON, or the text if it is not JSON."""
    try:
        return orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return event.data


def _piece(data: Mapping[str, Any]) -> str:
    choices = data.get("choices")
    if isinstance(choices, list):
        return "".join(_piece(choice) for choice in choices if isinstance(choice, Mapping))
    return _text(data, "delta") or _text(member(data, "delta"), "content", "text") or _text(data, "content", "text")


def _error(event: ServerSentEvent, data: Mapping[str, Any]) -> str | None:
    error = data.get("error")
    if error is None and event.event != "error":
        return None
    return _text(error if isinstance(error, Mapping) else data, "code", "message") or "unnamed"


def _text(data: Mapping[str, Any], *names: str) -> str:
    """The first of the members that is a text and not empty; else an empty text."""
    return next((value for name in names if isinstance(value := data.get(name), str) and value), "")
