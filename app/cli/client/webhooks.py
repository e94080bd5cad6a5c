"""The commands `webhooks …`: the endpoints that a receiver calls, as the token in RECEIVER_TOKEN sees them."""

from typing import Annotated

import typer

from app.cli.client import output
from app.cli.client.commands import AsJson, call_receiver

group = typer.Typer(no_args_is_help=True, help="Webhooks that the receiver calls when something happens.")

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="The webhook's id (whend_…).", show_default=False)]


@group.command("list")
def list_webhooks(as_json: AsJson = False) -> None:
    """List the webhooks of the token, for an admin all."""
    call_receiver(lambda receiver: receiver.get("webhooks"), output.webhooks, as_json=as_json)


@group.command()
def create(
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


@group.command()
def pause(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Hold what happens for two days at most, until the webhook is enabled."""
    _set_status(webhook_id, "paused", as_json=as_json)


@group.command()
def enable(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Call a paused or disabled webhook again, with what was held."""
    _set_status(webhook_id, "active", as_json=as_json)


@group.command()
def delete(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Delete a webhook. Nothing more is sent to it."""
    call_receiver(
        lambda receiver: receiver.delete("webhooks", webhook_id), lambda _: f"{webhook_id}: deleted", as_json=as_json
    )


@group.command()
def rotate(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Give a webhook a new secret and print it. Both sign for 72 hours."""
    call_receiver(
        lambda receiver: receiver.post("webhooks", webhook_id, "rotate-secret"), output.webhook, as_json=as_json
    )


@group.command("test")
def send_test(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Send a test event now. Exit status 1 if it was not answered with a 2xx."""
    call_receiver(
        lambda receiver: receiver.post("webhooks", webhook_id, "test"), output.details, as_json=as_json, waits=True
    )


@group.command()
def resend(
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
