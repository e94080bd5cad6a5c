"""`generations create | get | watch | list`."""

import mimetypes
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from app.cli.client import output
from app.cli.client.http import FAILED, SUCCEEDED, AsJson, CallFailed, Receiver, new_key, run, say, segment, unanswered
from app.cli.client.output import cell, plain
from app.cli.client.watch import outcome_of, progress_on

generation_commands = typer.Typer(no_args_is_help=True, help="Create generations, look at them, wait for them.")

Identity = Annotated[str, typer.Argument(metavar="ID", help="The generation's id.", show_default=False)]
Patience = Annotated[
    float | None, typer.Option("--timeout", min=0, help="Seconds to wait at most; then exit status 1.")
]


@generation_commands.command()
def create(
    prompt: Annotated[str | None, typer.Argument(help="What to make.", show_default=False)] = None,
    *,
    model: Annotated[str, typer.Option(help="One of `rivya-receiver models`.")],
    params: Annotated[str | None, typer.Option(metavar="JSON", help="What the model takes besides: an object.")] = None,
    client_request_id: Annotated[str | None, typer.Option(help="Your own trace id.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Of a create that is to be repeated.")] = None,
    watch_it: Annotated[bool, typer.Option("--watch", help="Wait for its outcome.")] = False,
    patience: Patience = None,
    as_json: AsJson = False,
) -> None:
    """Create a generation; with --watch, wait for it as `watch` does."""
    named = {"model": model, "prompt": prompt, "params": _object(params), "client_request_id": client_request_id}
    body = {name: value for name, value in named.items() if value is not None}
    key = idempotency_key or new_key()

    async def act(receiver: Receiver) -> int:
        try:
            document = await receiver.post("/generations", body, key=key)
        except CallFailed as failure:
            if failure.may_pass:
                typer.echo(f"to repeat it and pay once at most, add --idempotency-key {key}", err=True)
            raise
        if watch_it:
            # To watch it again, if this wait ends early.
            typer.echo(f"generation: {plain(_id_of(document))}", err=True)
            return await _watch(receiver, _id_of(document), patience, as_json=as_json)
        say(document, output.generation, as_json=as_json)
        return SUCCEEDED

    run(act, as_json=as_json)


@generation_commands.command()
def get(identity: Identity, as_json: AsJson = False) -> None:
    """Show a generation as it is now; exit status 0 whatever its own status."""

    async def act(receiver: Receiver) -> int:
        say(await receiver.get(f"/generations/{segment(identity)}"), output.generation, as_json=as_json)
        return SUCCEEDED

    run(act, as_json=as_json)


@generation_commands.command()
def watch(identity: Identity, patience: Patience = None, as_json: AsJson = False) -> None:
    """Wait for a generation's outcome; exit status 0 if it succeeded, 1 if it failed."""

    async def act(receiver: Receiver) -> int:
        return await _watch(receiver, identity, patience, as_json=as_json)

    run(act, as_json=as_json)


@generation_commands.command("list")
def list_them(
    status: Annotated[str | None, typer.Option(help="queued, processing, succeeded or failed.")] = None,
    tracking: Annotated[str | None, typer.Option(help="watching, settled, stalled or lost.")] = None,
    model: Annotated[str | None, typer.Option(help="Of this model.")] = None,
    submitted_by: Annotated[str | None, typer.Option(help="By the token of this name.")] = None,
    client_request_id: Annotated[str | None, typer.Option(help="With this trace id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the list before ended.")] = None,
    as_json: AsJson = False,
) -> None:
    """List generations, newest first."""
    chosen: dict[str, str | int | None] = {
        "status": status,
        "tracking": tracking,
        "model": model,
        "submitted_by": submitted_by,
        "client_request_id": client_request_id,
        "limit": limit,
        "cursor": cursor,
    }

    async def act(receiver: Receiver) -> int:
        document = await receiver.get("/generations", **chosen)
        say(document, output.generations, as_json=as_json)
        if document.get("next_cursor") and not as_json:
            typer.echo(f"more: --cursor {document['next_cursor']}", err=True)
        return SUCCEEDED

    run(act, as_json=as_json)


def _id_of(document: dict[str, Any]) -> str:
    identity = document.get("id")
    if not isinstance(identity, str):
        raise unanswered("unexpected_answer", "it was created, and the answer does not tell its id")
    return identity


def _object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise typer.BadParameter("""must be a JSON object, such as '{"aspectRatio": "1:1"}'""", param_hint="--params")
    return value


async def _watch(receiver: Receiver, identity: str, patience: float | None, *, as_json: bool) -> int:
    with progress_on(sys.stderr) as show:
        document = await outcome_of(receiver, identity, show, patience=patience)
    say(document, output.generation, as_json=as_json)
    return SUCCEEDED if document.get("status") == "succeeded" else FAILED


# `models`, `credits` and `usage`: what there is, what is left, and who spent it.


def models(as_json: AsJson = False) -> None:
    """List the models."""

    async def act(receiver: Receiver) -> int:
        say(await receiver.get("/models"), output.models, as_json=as_json)
        return SUCCEEDED

    run(act, as_json=as_json)


def credits_left(as_json: AsJson = False) -> None:
    """Show the credits that are left."""

    async def act(receiver: Receiver) -> int:
        say(await receiver.get("/credits"), lambda document: cell(document.get("current_credits")), as_json=as_json)
        return SUCCEEDED

    run(act, as_json=as_json)


def usage(
    first: Annotated[str | None, typer.Option("--from", help="A day or a whole hour; 30 days ago if left out.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="A day or a whole hour, not included; or now.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sum generations and credits by token, model and day."""

    async def act(receiver: Receiver) -> int:
        say(await receiver.get("/usage", **{"from": first, "to": to}), output.usage, as_json=as_json)
        return SUCCEEDED

    run(act, as_json=as_json)


# `files upload`.


file_commands = typer.Typer(no_args_is_help=True, help="Files to refer to in generations and chats.")


class Kind(StrEnum):
    """What Rivya takes."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


@file_commands.callback()
def files() -> None:
    """Files to refer to in generations and chats."""


@file_commands.command()
def upload(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True, show_default=False)
    ],
    kind: Annotated[Kind | None, typer.Option(help="Told by the file's name if left out.")] = None,
    model: Annotated[str | None, typer.Option(help="The model that it is for.")] = None,
    client_request_id: Annotated[str | None, typer.Option(help="Your own trace id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a file, and show what to call it."""
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    given = {"kind": kind or _kind_of(media_type), "model": model, "client_request_id": client_request_id}
    fields = {name: str(value) for name, value in given.items() if value is not None}

    async def act(receiver: Receiver) -> int:
        with path.open("rb") as file:
            say(await receiver.upload(file, path.name, media_type, fields=fields), output.file, as_json=as_json)
        return SUCCEEDED

    run(act, as_json=as_json)


def _kind_of(media_type: str) -> Kind:
    kind = media_type.partition("/")[0]
    if kind not in tuple(Kind):
        message = "the file's name does not tell what it is; say image, video or audio"
        raise typer.BadParameter(message, param_hint="--kind")
    return Kind(kind)
