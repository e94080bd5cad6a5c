"""`chat`: one turn, whole or as it is spoken, in a new session or an older one."""

from typing import Annotated, Any

import typer

from app.cli.calling.event_stream import EventReader
from app.cli.calling.failures import unanswered
from app.cli.calling.receiver import Receiver, segment
from app.cli.calling.running import SUCCEEDED, AsJson, new_key, run, say_json
from app.cli.calling.shown import items_of
from app.cli.calling.speech import content_of, understood, whole_answer
from app.cli.calling.table import plain

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
    told = await receiver.post("/chat/completions", body, key=new_key())
    if as_json:
        say_json(told)
        return
    typer.echo(plain(whole_answer(told), keep=_TEXT))
    _say_session(told.get("session_id"))


async def _spoken(receiver: Receiver, body: dict[str, Any], *, as_json: bool) -> None:
    """Print pieces as they come; a stream that only tells the whole is printed when it does."""
    reader, has_spoken, whole, session_id = EventReader(), False, "", None
    async for chunk in receiver.stream("/chat/completions/stream", body, key=new_key()):
        for event in reader.feed(chunk):
            said = understood(event)
            if as_json:
                say_json({"event": event.name or None, "data": content_of(event)})
            elif said.piece:
                typer.echo(plain(said.piece, keep=_TEXT), nl=False)
            if said.error is not None:
                raise unanswered("stream_failed", f"the stream ended with an error: {said.error}")
            has_spoken = has_spoken or bool(said.piece)
            whole = said.whole or whole
            session_id = said.session_id or session_id
    if as_json:
        return
    if not has_spoken and not whole:
        raise unanswered("stream_not_understood", "the stream ended, and no text was found in it; --json shows it")
    typer.echo("" if has_spoken else plain(whole, keep=_TEXT))
    _say_session(session_id)


def _say_session(session_id: object) -> None:
    if isinstance(session_id, str):
        typer.echo(f"session: {plain(session_id)}", err=True)
