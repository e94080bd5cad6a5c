"""The commands that call a receiver over HTTP: about models, usage, events, chat, generations, files, webhooks."""

# As in app/cli/__init__.py, a command imports what it needs when it is called.

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_args

import typer

from app.cli.client import output

if TYPE_CHECKING:
    from app.cli.client.http import Receiver

client = typer.Typer()
generations_group = typer.Typer(no_args_is_help=True, help="Create generations, look at them, wait for them.")
webhooks_group = typer.Typer(no_args_is_help=True, help="Webhooks that the receiver calls when something happens.")
files_group = typer.Typer(no_args_is_help=True, help="Files to refer to in generations and chats.")
client.add_typer(generations_group, name="generations")
client.add_typer(files_group, name="files")
client.add_typer(webhooks_group, name="webhooks")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
GenerationId = Annotated[str, typer.Argument(metavar="ID", help="The generation's id.", show_default=False)]
WebhookId = Annotated[str, typer.Argument(metavar="ID", help="The webhook's id (whend_…).", show_default=False)]
Kind = Literal["image", "video", "audio"]
Direct = Annotated[
    bool, typer.Option("--database", help="Work on DATABASE_URL itself, as without RECEIVER_TOKEN, not on a receiver.")
]
WaitTimeout = Annotated[
    float | None, typer.Option("--timeout", min=0, help="Seconds to wait at most; then exit status 1.")
]


def call_receiver(
    act: Callable[["Receiver"], Awaitable[dict[str, Any]]], render: output.Render, *, as_json: bool, waits: bool = False
) -> NoReturn:
    """Print the object that `act` returns, and exit: with 1 if `waits` and the generation did not succeed."""
    from app.cli.client.http import call

    async def run(receiver: "Receiver") -> bool:
        document = await act(receiver)
        if as_json:
            output.print_json(document)
        else:
            typer.echo(render(document))
            if document.get("next_cursor"):
                typer.echo(f"more: --cursor {document['next_cursor']}", err=True)
        return not waits or document.get("status") == "succeeded"

    call(run, as_json=as_json)


def is_remote(*, database: bool) -> bool:
    """Whether an operator's command calls the running receiver: with RECEIVER_TOKEN and without `--database`."""
    from app.cli.client.http import has_token

    return not database and has_token()


@client.command()
def models(as_json: AsJson = False) -> None:
    """List the models."""
    call_receiver(lambda receiver: receiver.get("models"), output.models, as_json=as_json)


@client.command("credits")
def credits_left(as_json: AsJson = False) -> None:
    """Show the credits that are left."""
    call_receiver(
        lambda receiver: receiver.get("credits"),
        lambda document: output.cell(document.get("current_credits")),
        as_json=as_json,
    )


@client.command()
def usage(
    first: Annotated[str | None, typer.Option("--from", help="A day or a whole hour; 30 days ago if left out.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="A day or a whole hour, not included; or now.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sum generations and credits by token, model and day."""
    call_receiver(lambda receiver: receiver.get("usage", **{"from": first, "to": to}), output.usage, as_json=as_json)


@client.command()
def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens; end with Ctrl-C.")] = False,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Where to begin; the oldest if left out, with --follow now.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what happened to generations, a line for each event. The cursor to go on is printed to standard error."""
    from app.cli.client.http import Receiver, call
    from app.cli.client.watch import iter_events

    async def act(receiver: Receiver) -> bool:
        cursor = after or ("latest" if follow else None)
        try:
            async for page in iter_events(receiver, _print_error, after=cursor, follow=follow):
                if page.get("gap"):
                    _print_error("gap: events before the next one were removed")
                for event in output.items(page):
                    if as_json:
                        output.print_json(event)
                    else:
                        typer.echo(output.event(event))
                cursor = page["next_cursor"]
        finally:
            if cursor not in (None, "latest"):
                _print_error(f"more: --after {cursor}")
        return True

    call(act, as_json=as_json)


def _print_error(text: str) -> None:
    typer.echo(output.plain(text), err=True)


@client.command()
def chat(
    message: Annotated[str, typer.Argument(help="What to say.", show_default=False)],
    session: Annotated[str | None, typer.Option(metavar="ID", help="The session to continue.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it comes.")] = False,
    model: Annotated[str | None, typer.Option(help="The session's, or the first that chats, if left out.")] = None,
    attach: Annotated[list[str] | None, typer.Option(metavar="FILE_ID", help="A file; may be given again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say something to a model and print its answer. The session to continue is printed to standard error."""

    from app.cli.client.chat import choose_model, print_answer, print_stream
    from app.cli.client.http import Receiver, call

    async def act(receiver: Receiver) -> bool:
        body: dict[str, Any] = {"model": model or await choose_model(receiver, session), "message": message}
        if session is not None:
            body["session_id"] = session
        if attach:
            body["attachments"] = [{"file_id": file_id} for file_id in attach]
        await (print_stream if stream else print_answer)(receiver, body, as_json=as_json)
        return True

    call(act, as_json=as_json)


@generations_group.command()
def create(
    prompt: Annotated[str | None, typer.Argument(help="What to make.", show_default=False)] = None,
    *,
    model: Annotated[str, typer.Option(help="One of `rivya-receiver models`.")],
    params: Annotated[str | None, typer.Option(metavar="JSON", help="What the model takes besides: an object.")] = None,
    client_request_id: Annotated[str | None, typer.Option(help="Your own trace id.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Of a create that is to be repeated.")] = None,
    waits: Annotated[bool, typer.Option("--watch", help="Wait for its outcome.")] = False,
    timeout: WaitTimeout = None,
    as_json: AsJson = False,
) -> None:
    """Create a generation. With --watch, wait for it as `watch` does."""
    from uuid import uuid4

    from app.cli.client.http import CallFailed, Receiver, local_failure

    given = {"model": model, "prompt": prompt, "params": _object(params), "client_request_id": client_request_id}
    body = {name: value for name, value in given.items() if value is not None}
    key = idempotency_key or str(uuid4())

    async def act(receiver: Receiver) -> dict[str, Any]:
        try:
            document = await receiver.post("generations", body=body, key=key)
        except CallFailed as failure:
            if failure.may_pass:
                typer.echo(f"to repeat it and pay once at most, add --idempotency-key {key}", err=True)
            raise
        if not waits:
            return document
        generation_id = document.get("id")
        if not isinstance(generation_id, str):
            raise local_failure("unexpected_answer", "it was created, and the answer has no id")
        typer.echo(f"generation: {output.plain(generation_id)}", err=True)  # for `watch`, if this wait ends early
        return await _watch(receiver, generation_id, timeout)

    call_receiver(act, output.generation, as_json=as_json, waits=waits)


@generations_group.command()
def get(generation_id: GenerationId, as_json: AsJson = False) -> None:
    """Show a generation as it is now. The exit status is 0 whatever its own status."""
    call_receiver(lambda receiver: receiver.get("generations", generation_id), output.generation, as_json=as_json)


@generations_group.command()
def watch(generation_id: GenerationId, timeout: WaitTimeout = None, as_json: AsJson = False) -> None:
    """Wait for a generation's outcome. Exit status 0 if it succeeded, 1 if it failed."""
    call_receiver(
        lambda receiver: _watch(receiver, generation_id, timeout), output.generation, as_json=as_json, waits=True
    )


@generations_group.command()
def transitions(generation_id: GenerationId, as_json: AsJson = False) -> None:
    """Show the history of a generation."""
    call_receiver(
        lambda receiver: receiver.get("generations", generation_id, "transitions"), output.transitions, as_json=as_json
    )


@generations_group.command("list")
def list_generations(
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
    call_receiver(lambda receiver: receiver.get("generations", **chosen), output.generations, as_json=as_json)


def _object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    from app.core.records import json_object

    value = json_object(text)
    if value is None:
        raise typer.BadParameter("""must be a JSON object, such as '{"aspectRatio": "1:1"}'""", param_hint="--params")
    return value


async def _watch(receiver: "Receiver", generation_id: str, max_seconds: float | None) -> dict[str, Any]:
    from app.cli.client.watch import progress_on, wait_for_outcome

    with progress_on(sys.stderr) as show:
        return await wait_for_outcome(receiver, generation_id, show, max_seconds=max_seconds)


@files_group.command()
def upload(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True, show_default=False)
    ],
    kind: Annotated[Kind | None, typer.Option(help="Guessed from the file's name if left out.")] = None,
    model: Annotated[str | None, typer.Option(help="The model that it is for.")] = None,
    client_request_id: Annotated[str | None, typer.Option(help="Your own trace id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a file and show its id."""
    import mimetypes

    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    guessed = media_type.partition("/")[0]
    if kind is None and guessed not in get_args(Kind):
        message = "can't be guessed from the file's name; give image, video or audio"
        raise typer.BadParameter(message, param_hint="--kind")
    given = {"kind": kind or guessed, "model": model, "client_request_id": client_request_id}
    fields = {name: str(value) for name, value in given.items() if value is not None}

    async def act(receiver: "Receiver") -> dict[str, Any]:
        with path.open("rb") as file:
            return await receiver.upload(file, path.name, media_type, fields=fields)

    call_receiver(act, output.file, as_json=as_json)


@webhooks_group.command("list")
def list_webhooks(as_json: AsJson = False) -> None:
    """List the webhooks of the token, for an admin all."""
    call_receiver(lambda receiver: receiver.get("webhooks"), output.webhooks, as_json=as_json)


@webhooks_group.command("create")
def create_webhook(
    url: Annotated[str, typer.Argument(help="The https URL to call.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    events: Annotated[
        list[str] | None,
        typer.Option(
            "--event", metavar="TYPE", help="Such as generation.failed; may be given again; both outcomes if left out."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only generations of this model.")] = None,
    submitted_by: Annotated[str | None, typer.Option(help="Only what the token of this name submitted.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a webhook and print it with its secret, which is shown this once."""
    given = {"url": url, "name": name, "event_types": events, "model": model, "submitted_by": submitted_by}
    body = {member: value for member, value in given.items() if value}
    call_receiver(lambda receiver: receiver.post("webhooks", body=body), output.webhook, as_json=as_json)


@webhooks_group.command("pause")
def pause_webhook(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Hold what happens for two days at most, until the webhook is enabled."""
    _set_status(webhook_id, "paused", as_json=as_json)


@webhooks_group.command("enable")
def enable_webhook(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Call a paused or disabled webhook again, with what was held."""
    _set_status(webhook_id, "active", as_json=as_json)


@webhooks_group.command("delete")
def delete_webhook(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Delete a webhook. Nothing more is sent to it."""
    call_receiver(
        lambda receiver: receiver.delete("webhooks", webhook_id), lambda _: f"{webhook_id}: deleted", as_json=as_json
    )


@webhooks_group.command("rotate")
def rotate_webhook(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Give a webhook a new secret and print it. Both sign for 72 hours."""
    call_receiver(
        lambda receiver: receiver.post("webhooks", webhook_id, "rotate-secret"), output.webhook, as_json=as_json
    )


@webhooks_group.command("test")
def send_test(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Send a test event now. Exit status 1 if it was not answered with a 2xx."""
    call_receiver(
        lambda receiver: receiver.post("webhooks", webhook_id, "test"), output.details, as_json=as_json, waits=True
    )


@webhooks_group.command("resend")
def resend_webhook(
    webhook_id: WebhookId,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Written then or later (ISO 8601).")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Written before.")] = None,
    status: Annotated[str, typer.Option(help="Those that are dead, delivered, canceled …")] = "dead",
    as_json: AsJson = False,
) -> None:
    """Send again what was given up, or what --status names."""
    given = {"since": since, "until": until, "status": status}
    body = {member: value for member, value in given.items() if value is not None}
    call_receiver(
        lambda receiver: receiver.post("webhooks", webhook_id, "resend", body=body),
        lambda document: f"{output.cell(document.get('count'))} are sent again",
        as_json=as_json,
    )


def _set_status(webhook_id: str, status: str, *, as_json: bool) -> None:
    call_receiver(
        lambda receiver: receiver.patch("webhooks", webhook_id, body={"status": status}),
        output.webhook,
        as_json=as_json,
    )
