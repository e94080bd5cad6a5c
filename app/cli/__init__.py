"""The command: runs a receiver, and calls one that runs (RECEIVER_URL, RECEIVER_TOKEN)."""

import logging
import sys
from typing import Annotated

import typer
import uvloop

from app.cli import operations
from app.cli.check import check_deployment
from app.cli.client import commands
from app.cli.client.chat import chat
from app.cli.demo import demonstrate
from app.cli.endpoint import endpoint_commands, key_commands
from app.cli.sandbox import serve_sandbox_until_stopped
from app.cli.server import AddressTaken, serve_until_stopped
from app.core import logs
from app.core.settings import SettingsInvalid, has_api_key, load
from app.sandbox.accounts import DEFAULT_KEY
from app.sandbox.settings import SandboxSettings
from app.sandbox.state import Sandbox

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
cli.add_typer(endpoint_commands, name="endpoint")
cli.add_typer(key_commands, name="keys")
cli.command()(commands.models)
cli.command("credits")(commands.credits_left)
cli.command()(commands.usage)
cli.add_typer(commands.generation_commands, name="generations")
cli.add_typer(commands.file_commands, name="files")
cli.command()(chat)
cli.add_typer(operations.deliveries, name="deliveries")
operations.attach(commands.generation_commands)


@cli.command()
def serve() -> None:
    """Serve, with settings from the environment and .env."""
    try:
        settings = load()
    except SettingsInvalid as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
    logs.configure(settings.receiver_log_format)
    sys.exit(uvloop.run(serve_until_stopped(settings)))


@cli.command()
def run(
    keep: Annotated[bool, typer.Option("--keep", help="Go on with the record of the last demonstration.")] = False,
) -> None:
    """The main job: serve for real with RIVYA_API_KEY, else demonstrate it against the bundled sandbox."""
    if has_api_key():
        serve()
    logs.configure("console", least=logging.ERROR)
    try:
        status = uvloop.run(demonstrate(typer.echo, keep=keep))
    except (AddressTaken, SettingsInvalid) as error:
        typer.echo(str(error), err=True)
        status = 1 if isinstance(error, AddressTaken) else 2
    sys.exit(status)


@cli.command()
def check(
    public: Annotated[
        bool, typer.Option("--public", help="Also knock at the public URL and have Rivya send a test delivery.")
    ] = False,
) -> None:
    """Test everything that a deployment needs, a line each; exit status 0 if all is well, else 1."""
    logs.configure("console", least=logging.ERROR)
    try:
        settings = load()
    except SettingsInvalid as error:
        for line in str(error).splitlines():
            typer.echo(f"FAIL  settings: {line}")
        sys.exit(1)
    sys.exit(0 if uvloop.run(check_deployment(settings, typer.echo, is_public=public)) else 1)


@cli.command()
def sandbox(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 9000,
    speed: Annotated[float, typer.Option(help="Divides the time that generations take.")] = 1.0,
    key: Annotated[list[str] | None, typer.Option(help="An API key it knows; may be given again.")] = None,
) -> None:
    """Run a Rivya on this machine, for trying things out and for misbehaving on demand (see /sandbox/faults)."""
    rivya = Sandbox(keys=key or [DEFAULT_KEY], settings=SandboxSettings(speed=speed))
    sys.exit(uvloop.run(serve_sandbox_until_stopped(rivya, host, port, say=typer.echo)))


def main() -> None:
    """The console script."""
    cli()
