"""The words of `rivya-receiver endpoint` and of `rivya-receiver keys`."""

import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import typer
import uvloop
from cryptography.fernet import Fernet

from app.cli import endpoint as acts
from app.core import logs
from app.core.encryption import SealBroken
from app.core.errors import DatabaseUnavailable
from app.core.settings import Settings, SettingsInvalid, load

endpoint = typer.Typer(help="Our registration with Rivya; alone: show it.")
keys = typer.Typer(no_args_is_help=True, help="Encryption keys.")

Act = Callable[[Settings, Callable[[str], Any]], Coroutine[Any, Any, bool]]


@endpoint.callback(invoke_without_command=True)
def show(context: typer.Context) -> None:
    """Show our endpoints: state, scheme and what proved it, secrets (when, never which), history."""
    if context.invoked_subcommand is None:
        _do(acts.show)


@endpoint.command()
def rotate() -> None:
    """Have Rivya make a new signing secret; the old one goes on being accepted for RECEIVER_SECRET_OVERLAP."""
    _do(acts.rotate)


@endpoint.command()
def repin() -> None:
    """Forget the pinned signature scheme, so that the next delivery proves it anew."""
    _do(acts.repin)


@keys.command("generate")
def generate_key() -> None:
    """Print a fresh key for RECEIVER_ENCRYPTION_KEYS."""
    typer.echo(Fernet.generate_key().decode())


@keys.command("rotate")
def rotate_keys() -> None:
    """Encrypt the stored secrets under the first of RECEIVER_ENCRYPTION_KEYS, so that the others can be put away."""
    _do(acts.reencrypt)


def _do(act: Act) -> None:
    """Exit status 0 done, 1 not done, 2 bad settings."""
    logs.configure("console", least=logging.ERROR)
    try:
        settings = load()
    except SettingsInvalid as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
    try:
        done = uvloop.run(act(settings, typer.echo))
    except SealBroken as error:
        typer.echo(f"RECEIVER_ENCRYPTION_KEYS: {error}; nothing was changed", err=True)
        sys.exit(2)
    except DatabaseUnavailable as error:
        typer.echo(f"DATABASE_URL: the database can't be used ({error.reason or 'unavailable'})", err=True)
        sys.exit(1)
    sys.exit(0 if done else 1)
