"""`generations create | get | watch | list`."""

import sys
from typing import Annotated, Any

import orjson
import typer

from app.cli.calling import shown
from app.cli.calling.failures import CallFailed, unanswered
from app.cli.calling.progress import progress_on
from app.cli.calling.receiver import Receiver, segment
from app.cli.calling.running import FAILED, SUCCEEDED, AsJson, new_key, run, say
from app.cli.calling.table import plain
from app.cli.calling.watching import outcome_of

words = typer.Typer(no_args_is_help=True, help="Create generations, look at them, wait for them.")

Identity = Annotated[str, typer.Argument(metavar="ID", help="The generation's id.", show_default=False)]
Patience = Annotated[
    float | None, typer.Option("--timeout", min=0, help="Seconds to wait at most; then exit status 1.")
]


@words.command()
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
            told = await receiver.post("/generations", body, key=key)
        except CallFailed as failure:
            if failure.may_pass:
                typer.echo(f"to repeat it and pay once at most, add --idempotency-key {key}", err=True)
            raise
        if watch_it:
            typer.echo(f"generation: {plain(_id_of(told))}", err=True)  # to watch it again, should this wait end early
            return await _watch(receiver, _id_of(told), patience, as_json=as_json)
        say(told, shown.generation, as_json=as_json)
        return SUCCEEDED

    run(act, as_json=as_json)


@words.command()
def get(identity: Identity, as_json: AsJson = False) -> None:
    """Show a generation as it is now; exit status 0 whatever its own status."""

    async def act(receiver: Receiver) -> int:
        say(await receiver.get(f"/generations/{segment(identity)}"), shown.generation, as_json=as_json)
        return SUCCEEDED

    run(act, as_json=as_json)


@words.command()
def watch(identity: Identity, patience: Patience = None, as_json: AsJson = False) -> None:
    """Wait for a generation's outcome; exit status 0 if it succeeded, 1 if it failed."""

    async def act(receiver: Receiver) -> int:
        return await _watch(receiver, identity, patience, as_json=as_json)

    run(act, as_json=as_json)


@words.command("list")
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
        told = await receiver.get("/generations", **chosen)
        say(told, shown.generations, as_json=as_json)
        if told.get("next_cursor") and not as_json:
            typer.echo(f"more: --cursor {told['next_cursor']}", err=True)
        return SUCCEEDED

    run(act, as_json=as_json)


def _id_of(told: dict[str, Any]) -> str:
    identity = told.get("id")
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
    async with progress_on(sys.stderr) as progress:
        told = await outcome_of(receiver, identity, progress, patience=patience)
    say(told, shown.generation, as_json=as_json)
    return SUCCEEDED if told.get("status") == "succeeded" else FAILED
