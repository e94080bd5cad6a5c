"""The command: rivya-receiver run | serve | check | sandbox | keys | deliveries | generations."""

import logging
import sys
from typing import Annotated

import typer
import uvloop
from cryptography.fernet import Fernet

from app.cli import operate_deliveries, operate_generations
from app.cli.check import check_deployment
from app.cli.demo import demonstrate
from app.cli.sandbox import serve_sandbox_until_stopped
from app.cli.serve import serve_until_stopped
from app.core import logs
from app.core.settings import has_api_key, load
from app.core.settings_errors import SettingsInvalid
from app.sandbox.keys import DEFAULT_KEY
from app.sandbox.settings import SandboxSettings
from app.sandbox.state import Sandbox

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
keys = typer.Typer(no_args_is_help=True, help="Encryption keys.")
cli.add_typer(keys, name="keys")
cli.add_typer(operate_deliveries.deliveries, name="deliveries")
generations = typer.Typer(no_args_is_help=True, help="Generations.")
operate_generations.attach(generations)
cli.add_typer(generations, name="generations")


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
def run() -> None:
    """The main job: serve for real with RIVYA_API_KEY, else demonstrate it against the bundled sandbox."""
    if has_api_key():
        serve()
    logs.configure("console", least=logging.ERROR)
    sys.exit(uvloop.run(demonstrate(typer.echo)))


@cli.command()
def check() -> None:
    """Test everything that a deployment needs, a line each; exit status 0 if all is well, else 1."""
    logs.configure("console", least=logging.ERROR)
    try:
        settings = load()
    except SettingsInvalid as error:
        for line in str(error).splitlines():
            typer.echo(f"FAIL  settings: {line}")
        sys.exit(1)
    sys.exit(0 if uvloop.run(check_deployment(settings, typer.echo)) else 1)


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


@keys.command("generate")
def generate_key() -> None:
    """Print a fresh key for RECEIVER_ENCRYPTION_KEYS."""
    typer.echo(Fernet.generate_key().decode())


def main() -> None:
    """The console script."""
    cli()
