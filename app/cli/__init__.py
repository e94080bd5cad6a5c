"""Run a receiver, or call one that runs (RECEIVER_URL, RECEIVER_TOKEN)."""

# A command imports what it needs when it is called, because importing the service takes much longer than printing help.

import os
import sys
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app.cli.client import commands, output
from app.cli.client.commands import AsJson, Direct, GenerationId, call_receiver, is_remote

if TYPE_CHECKING:
    from app.cli.client.http import Receiver

# structlog, httpx and FastAPI import these if they are there, for what a server doesn't do: 9 MiB, a tenth of a start.
UNUSED = ("rich", "pygments", "pydantic.v1")

cli = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # help without rich, whose import takes longer than everything else that help needs
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=__doc__,
)
endpoint_group = typer.Typer(help="Show or change our registration with Rivya.")
keys_group = typer.Typer(no_args_is_help=True, help="Encryption keys.")
deliveries_group = typer.Typer(no_args_is_help=True, help="Deliveries that are stored.")
tokens_group = typer.Typer(no_args_is_help=True, help="Tokens that programs call this receiver with.")
cli.add_typer(endpoint_group, name="endpoint")
cli.add_typer(keys_group, name="keys")
cli.add_typer(deliveries_group, name="deliveries")
cli.add_typer(tokens_group, name="tokens")
cli.add_typer(commands.client)

OutcomeName = Literal["applied", "stale", "conflict", "test", "unknown_type", "unreadable"]
"""The values of `app.ledger.models.Outcome`, whose import is not for help."""
Outcome = Annotated[OutcomeName | None, typer.Option(help="Only those stored with this outcome.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        version()


@cli.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""
    os.umask(0o077)  # what we write is for our own user: the record, its secrets, the demonstration's folder


@cli.command()
def version(as_json: AsJson = False) -> None:
    """Show the version."""
    from importlib import metadata

    number = metadata.version("rivya-receiver")
    output.show({"version": number}, f"rivya-receiver {number}", as_json=as_json)
    raise typer.Exit


@cli.command()
def serve(
    force: Annotated[bool, typer.Option("--force", help="Also on a SQLite file that another receiver uses.")] = False,
) -> None:
    """Serve, with settings from the environment and .env."""
    import gc

    gc.disable()  # until `serve_until_stopped`: imports make many objects and almost no garbage
    for name in UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # Python's own way to hide a module
    import uvloop

    from app.cli.server import serve_until_stopped
    from app.core import logs
    from app.core.setting_sources import SettingsInvalid
    from app.core.settings import load

    try:
        settings = load()
    except SettingsInvalid as error:
        output.fail(str(error), status=2)
    logs.configure(settings.receiver_log_format, least=settings.receiver_log_level)
    uvloop.run(serve_until_stopped(settings, may_share_file=force))


@cli.command()
def run(
    keep: Annotated[bool, typer.Option("--keep", help="Continue with the data of the last demonstration.")] = False,
) -> None:
    """Serve, or without RIVYA_API_KEY show a demonstration. It uses the bundled sandbox."""
    from app.core.settings import has_api_key

    if has_api_key():
        serve(force=False)
    from app.cli.demo import run_demo

    run_demo(keep=keep)


@cli.command("migrate")
def migrate_database(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit status 1 if it is not done.")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Change nothing; print the statements.")] = False,
    down: Annotated[
        str | None, typer.Option(metavar="REVISION", help="Go back to an earlier revision; base: drop all tables.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring the database to this release's schema. Under a lock; needs DATABASE_URL only."""
    if check + sql + (down is not None) > 1:
        raise typer.BadParameter("give one of --check, --sql and --down")
    from app.cli.database import migrate

    migrate(only_check=check, only_sql=sql, down_to=down, as_json=as_json)


@cli.command("copy")
def copy_record(
    source: Annotated[str, typer.Option("--from", metavar="URL", help="The database that holds the record.")],
    target: Annotated[str, typer.Option("--to", metavar="URL", help="An empty one; tables are made.")],
    as_json: AsJson = False,
) -> None:
    """Copy the whole record to another database. From SQLite to PostgreSQL, or any to any; no receiver may run."""
    from app.cli.database import copy

    copy(source, target, as_json=as_json)


@cli.command("config")
def show_config(as_json: AsJson = False) -> None:
    """Show the settings in force. And where each comes from; secrets are hidden."""
    from app.cli.check import show_settings

    show_settings(as_json=as_json)


@cli.command("check")
def check_deployment(
    public: Annotated[
        bool, typer.Option("--public", help="Also call the public URL and have Rivya send a test delivery.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Test everything that a deployment needs. One line for each test; exit status 0 if all is well, else 1."""
    from app.cli.check import run_checks

    run_checks(is_public=public, as_json=as_json)


@cli.command("sandbox")
def serve_sandbox(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 9000,
    speed: Annotated[float, typer.Option(help="Divides the time that generations take.")] = 1.0,
    key: Annotated[list[str] | None, typer.Option(help="An API key it knows; may be given again.")] = None,
) -> None:
    """Run a simulated Rivya on this machine. It misbehaves on demand (see /sandbox/faults)."""
    from app.sandbox.server import run_sandbox

    sys.exit(run_sandbox(host, port, speed=speed, keys=key))


@endpoint_group.callback(invoke_without_command=True)
def show_endpoint(context: typer.Context, database: Direct = False, as_json: AsJson = False) -> None:
    """Show our endpoints. Their state, scheme and what proved it, times of their secrets, history."""
    if context.invoked_subcommand is not None:
        return
    if is_remote(database=database):

        async def act(receiver: "Receiver") -> dict[str, Any]:
            return {**await receiver.get("endpoint"), "history": await receiver.get("endpoint", "history")}

        call_receiver(act, output.endpoint, as_json=as_json)
    from app.cli import endpoint, operations

    operations.run_command(partial(endpoint.show, as_json=as_json))


@endpoint_group.command("rotate")
def rotate_secret(database: Direct = False, as_json: AsJson = False) -> None:
    """Replace the signing secret. The old one is accepted for another RECEIVER_SECRET_OVERLAP."""
    if is_remote(database=database):
        stored, waiting = "a new secret is stored", "requested; it is not stored yet, see /readyz"
        call_receiver(
            lambda receiver: receiver.post("endpoint", "rotate-secret"),
            lambda endpoint: stored if endpoint.get("rotation") == "none" else waiting,
            as_json=as_json,
        )
    from app.cli import endpoint, operations

    operations.run_command(partial(endpoint.rotate, as_json=as_json), act="endpoint rotate")


@endpoint_group.command("repin")
def repin_scheme(database: Direct = False, as_json: AsJson = False) -> None:
    """Forget the signature scheme. The next delivery proves it anew."""
    if is_remote(database=database):
        text = "no longer pinned; the next delivery proves the scheme anew"
        call_receiver(lambda receiver: receiver.post("endpoint", "repin"), lambda _: text, as_json=as_json)
    from app.cli import endpoint, operations

    operations.run_command(partial(endpoint.repin, as_json=as_json), act="endpoint repin")


@endpoint_group.command("reset-secret")
def reset_secret(yes: Yes = False, as_json: AsJson = False) -> None:
    """Get a new signing secret after the encryption key was lost. Works on the database directly."""
    from app.cli import endpoint, operations

    operations.run_command(partial(endpoint.reset_secret, yes=yes, as_json=as_json))


orphans_group = typer.Typer(help="Endpoints that a lost database left at Rivya.")
endpoint_group.add_typer(orphans_group, name="orphans")


@orphans_group.callback(invoke_without_command=True)
def list_orphans(context: typer.Context, database: Direct = False, as_json: AsJson = False) -> None:
    """List endpoints left at Rivya. They have our name and host, and the database does not know them."""
    if context.invoked_subcommand is not None:
        return
    if is_remote(database=database):
        call_receiver(lambda receiver: receiver.get("endpoint", "orphans"), output.orphans, as_json=as_json)
    from app.cli import endpoint, operations

    operations.run_command(partial(endpoint.orphans, as_json=as_json))


@orphans_group.command("remove")
def remove_orphan(
    rivya_id: Annotated[str, typer.Argument(metavar="ID", help="One that `endpoint orphans` lists.")],
    yes: Yes = False,
    database: Direct = False,
    as_json: AsJson = False,
) -> None:
    """Remove an endpoint left at Rivya. Deliveries to it are refused anyway, unless another receiver uses it."""
    if not yes and not typer.confirm(
        f"Remove {rivya_id} at Rivya? If another receiver uses it, that one is cut off.", err=as_json
    ):
        raise typer.Exit(1)
    if is_remote(database=database):
        call_receiver(
            lambda receiver: receiver.delete("endpoint", "orphans", rivya_id), output.removed, as_json=as_json
        )
    from app.cli import endpoint, operations

    work = partial(endpoint.remove_orphan, rivya_id=rivya_id, as_json=as_json)
    operations.run_command(work, act="endpoint orphans remove", target=rivya_id)


@keys_group.command("generate")
def generate_key(as_json: AsJson = False) -> None:
    """Print a new key for RECEIVER_ENCRYPTION_KEYS."""
    from cryptography.fernet import Fernet

    key = Fernet.generate_key().decode()
    output.show({"key": key}, key, as_json=as_json)


@keys_group.command("rotate")
def rotate_keys(as_json: AsJson = False) -> None:
    """Encrypt the stored secrets anew. With the first of RECEIVER_ENCRYPTION_KEYS; then the others can be removed."""
    from app.cli import endpoint, operations

    operations.run_command(partial(endpoint.reencrypt, as_json=as_json), act="keys rotate")


Expires = Annotated[str | None, typer.Option(metavar="DURATION", help="Such as 90d; without it, never.")]
CreditsPerDay = Annotated[str | None, typer.Option(metavar="N", help="At most, by the day in UTC.")]
CreditsPerMonth = Annotated[str | None, typer.Option(metavar="N", help="At most, by the month in UTC.")]
Models = Annotated[str | None, typer.Option(metavar="A,B", help="The only models that it may use.")]
Rate = Annotated[str | None, typer.Option(metavar="N/min", help="Creates and chat turns a minute.")]


@tokens_group.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="Letters, digits, dots, dashes and underscores; never used again.")],
    role: Annotated[str, typer.Option(help="read, write, admin, read-own or write-own.")],
    expires: Expires = None,
    credits_per_day: CreditsPerDay = None,
    credits_per_month: CreditsPerMonth = None,
    models: Models = None,
    rate: Rate = None,
    as_json: AsJson = False,
) -> None:
    """Create a token and print it. It is shown this once; every replica knows it within a second."""
    from app.cli import operations, tokens
    from app.tokens.routes import CreateToken

    limits = tokens.read_limits(expires, credits_per_day, credits_per_month, models, rate)
    wanted = tokens.validated(CreateToken, {"name": name, "role": role, **limits})
    operations.run_command(partial(tokens.create, wanted=wanted, as_json=as_json))


@tokens_group.command("list")
def list_tokens(as_json: AsJson = False) -> None:
    """List the tokens. Their roles, limits, what is left of them, and last use; no secrets are stored."""
    from app.cli import operations, tokens

    operations.run_command(partial(tokens.show, as_json=as_json))


@tokens_group.command("change")
def change_token(
    name: str,
    expires: Expires = None,
    credits_per_day: CreditsPerDay = None,
    credits_per_month: CreditsPerMonth = None,
    models: Models = None,
    rate: Rate = None,
    as_json: AsJson = False,
) -> None:
    """Change limits or expiry of a token. What is not given stays; `none` removes a limit."""
    from app.cli import operations, tokens
    from app.tokens.routes import ChangeToken

    limits = tokens.read_limits(expires, credits_per_day, credits_per_month, models, rate)
    if not limits:
        raise typer.BadParameter("give at least one limit that is to be changed")
    wanted = tokens.validated(ChangeToken, limits)
    operations.run_command(partial(tokens.change, name=name, wanted=wanted, as_json=as_json))


@tokens_group.command("revoke")
def revoke_token(name: str, as_json: AsJson = False) -> None:
    """Revoke a token for good. Every replica refuses it within a second."""
    from app.cli import operations, tokens

    operations.run_command(partial(tokens.revoke, name=name, as_json=as_json))


@tokens_group.command("rotate")
def rotate_token(
    name: str,
    overlap: Annotated[str, typer.Option(metavar="DURATION", help="How long the old secret is accepted.")] = "0s",
    as_json: AsJson = False,
) -> None:
    """Give a token a new secret and print it. Its name, role and limits stay."""
    from app.cli import operations, tokens

    work = partial(tokens.rotate, name=name, overlap=tokens.read_duration(overlap), as_json=as_json)
    operations.run_command(work)


def _read_time(text: str) -> datetime:
    from app.rivya.payloads import read_iso

    time = read_iso(text)
    if time is None:
        raise typer.BadParameter(f"got {text!r}; give a time such as 2026-05-11T00:00:00Z")
    return time


@deliveries_group.command("list")
def list_deliveries(
    generation_id: Annotated[str | None, typer.Option("--generation", metavar="ID", help="About this one.")] = None,
    outcome: Outcome = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the list before ended.")] = None,
    as_json: AsJson = False,
) -> None:
    """List stored deliveries, newest first."""
    chosen = {"generation_id": generation_id, "outcome": outcome, "cursor": cursor}
    call_receiver(
        lambda receiver: receiver.get("deliveries", **chosen, limit=limit), output.deliveries, as_json=as_json
    )


@deliveries_group.command()
def replay(
    event_id: Annotated[str | None, typer.Argument(help="The event to replay.")] = None,
    since: Annotated[
        datetime | None, typer.Option(parser=_read_time, metavar="TIME", help="Received then or later (ISO 8601).")
    ] = None,
    until: Annotated[datetime | None, typer.Option(parser=_read_time, metavar="TIME", help="Received before.")] = None,
    outcome: Outcome = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write; without it, only print what would change.")] = False,
    database: Direct = False,
    as_json: AsJson = False,
) -> None:
    """Record stored deliveries again. Oldest first, as reports of the operator."""
    if event_id is None and since is None and until is None and outcome is None:
        raise typer.BadParameter("name an EVENT_ID, or choose with --since, --until or --outcome")
    if is_remote(database=database):
        given = {"event_id": event_id, "since": since, "until": until, "outcome": outcome, "apply": apply}
        body = {name: value for name, value in given.items() if value is not None}
        call_receiver(
            lambda receiver: receiver.post("deliveries", "replay", body=body), output.replayed, as_json=as_json
        )
    from app.cli import operations
    from app.ledger.models import DeliveryFilter
    from app.ledger.models import Outcome as StoredOutcome

    stored = None if outcome is None else StoredOutcome(outcome)
    chosen = DeliveryFilter(event_id=event_id, received_after=since, received_before=until, outcome=stored)
    work = partial(operations.replay, chosen=chosen, writes=apply, as_json=as_json)
    operations.run_operation(work, act="deliveries replay" if apply else None, target=event_id)


@commands.generations_group.command()
def poll(generation_id: GenerationId, database: Direct = False, as_json: AsJson = False) -> None:
    """Ask Rivya about a generation now. The response is recorded as a report of the operator."""
    if is_remote(database=database):
        call_receiver(
            lambda receiver: receiver.post("generations", generation_id, "poll"),
            lambda document: f"{generation_id}: {document.get('status')} ({document.get('outcome')})",
            as_json=as_json,
        )
    from app.cli import operations

    work = partial(operations.poll, generation_id=generation_id, as_json=as_json)
    operations.run_operation(work, act="generations poll", target=generation_id)


@commands.generations_group.command()
def forget(
    generation_id: GenerationId,
    even_open: Annotated[bool, typer.Option("--open", help="Also if its outcome isn't known yet.")] = False,
    database: Direct = False,
    as_json: AsJson = False,
) -> None:
    """Delete a generation. Also its history and its stored bodies; later events about it change nothing."""
    if is_remote(database=database):
        call_receiver(
            lambda receiver: receiver.delete("generations", generation_id, open="true" if even_open else None),
            lambda _: f"{generation_id}: forgotten",
            as_json=as_json,
        )
    from app.cli import operations

    work = partial(operations.forget, generation_id=generation_id, even_open=even_open, as_json=as_json)
    operations.run_operation(work, act="generations forget", target=generation_id)


def main() -> None:
    """The console script."""
    # Of containers that run several processes: prometheus_client would write files there, and uvicorn reads a number.
    for name in ("PROMETHEUS_MULTIPROC_DIR", "WEB_CONCURRENCY"):
        os.environ.pop(name, None)
    cli()
