"""`chat`: one turn, whole or as it is spoken, in a new session or an older one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
import typer
from httpx_sse import ServerSentEvent

from app.cli.client.http import SUCCEEDED, AsJson, Receiver, new_key, run, say_json, segment, unanswered
from app.cli.client.output import items_of, plain

_TEXT = "\n\t"


def chat(
    message: Annotated[str, typer.Argument(help="What to say.", show_default=False)],
    session: Annotated[str | None, typer.Option(metavar="ID", help="The session to go on with.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it comes.")] = False,
    model: Annotated[str | None, typer.Option(help="The session's, or the first that chats, if left out.")] = None,
    attach: Annotated[list[str] | None, typer.Option(metavar="FILE_ID", help="A file; may be given again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say something to a model, and print its answer; the session to go on with is printed to standard error."""

    async def act(receiver: Receiver) -> int:
        chosen = model or await _model(receiver, session)
        body: dict[str, Any] = {"model": chosen, "message": message}
        if session is not None:
            body["session_id"] = session
        if attach:
            body["attachments"] = [{"file_id": file_id} for file_id in attach]
        if stream:
            await _spoken(receiver, body, as_json=as_json)
        else:
            await _answered(receiver, body, as_json=as_json)
        return SUCCEEDED

    run(act, as_json=as_json)


async def _model(receiver: Receiver, session: str | None) -> str:
    if session is not None:
        known = (await receiver.get(f"/chat/sessions/{segment(session)}")).get("model")
        if isinstance(known, str):
            return known
    for model in items_of(await receiver.get("/models")):
        if model.get("category") == "chat" and model.get("api_status", "available") == "available":
            return str(model.get("id"))
    raise unanswered("no_chat_model", "no model of the catalogue chats; name one with --model")


async def _answered(receiver: Receiver, body: dict[str, Any], *, as_json: bool) -> None:
    document = await receiver.post("/chat/completions", body, key=new_key())
    if as_json:
        say_json(document)
        return
    typer.echo(plain(whole_answer(document), keep=_TEXT))
    _say_session(document.get("session_id"))


async def _spoken(receiver: Receiver, body: dict[str, Any], *, as_json: bool) -> None:
    """Print pieces as they come; a stream that only tells the whole is printed when it does."""
    has_spoken, whole, session_id = False, "", None
    async for event in receiver.stream("/chat/completions/stream", body, key=new_key()):
        output = understood(event)
        if as_json:
            say_json({"event": None if event.event == "message" else event.event, "data": content_of(event)})
        elif output.piece:
            typer.echo(plain(output.piece, keep=_TEXT), nl=False)
        if output.error is not None:
            raise unanswered("stream_failed", f"the stream ended with an error: {output.error}")
        has_spoken = has_spoken or bool(output.piece)
        whole = output.whole or whole
        session_id = output.session_id or session_id
    if as_json:
        return
    if not has_spoken and not whole:
        raise unanswered("stream_not_understood", "the stream ended, and no text was found in it; --json shows it")
    typer.echo("" if has_spoken else plain(whole, keep=_TEXT))
    _say_session(session_id)


def _say_session(session_id: object) -> None:
    if isinstance(session_id, str):
        typer.echo(f"session: {plain(session_id)}", err=True)


# What an event of a chat stream says: Rivya documents neither names nor data, so it is found by its shape.


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOutput:
    """All that was found in one event; mostly one of these."""

    piece: str = ""
    """More of the answer."""
    whole: str = ""
    """All of the answer."""
    session_id: str | None = None
    error: str | None = None
    """Why there is no more."""


def understood(event: ServerSentEvent) -> ChatOutput:
    """Find what an event says; one of a form never seen says nothing."""
    data = content_of(event)
    if not isinstance(data, Mapping):
        return ChatOutput(error=(event.data or "unnamed") if event.event == "error" else None)
    session_id = data.get("session_id")
    return ChatOutput(
        piece=_piece(data),
        whole=_text(_object(data, "message"), "content"),
        session_id=session_id if isinstance(session_id, str) else None,
        error=_error(event, data),
    )


def content_of(event: ServerSentEvent) -> object:
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


def _error(event: ServerSentEvent, data: Mapping[str, Any]) -> str | None:
    error = data.get("error")
    if error is None and event.event != "error":
        return None
    named = error if isinstance(error, Mapping) else data
    return _text(named, "code") or _text(named, "message") or "unnamed"


def _object(data: Mapping[str, Any], member: str) -> Mapping[str, Any]:
    value = data.get(member)
    return value if isinstance(value, Mapping) else {}


def _text(data: Mapping[str, Any], member: str) -> str:
    value = data.get(member)
    return value if isinstance(value, str) else ""
