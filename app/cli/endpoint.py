"""rivya-receiver endpoint: what is registered, what proved it, and what an admin may ask of it."""

import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import typer
import uvloop
from cryptography.fernet import Fernet

from app.core import logs
from app.core.clock import SystemClock
from app.core.database import Database
from app.core.encryption import DecryptionFailed, SecretBox
from app.core.errors import DatabaseUnavailable
from app.core.settings import Settings, SettingsInvalid, load
from app.endpoint.models import Endpoint, State, current, masked
from app.endpoint.repository import EndpointRepository, StoredSecret, reencrypt_secrets
from app.endpoint.service import EndpointCommands, EndpointUnknown
from app.rivya.schemes import Scheme, parse_scheme

Say = Callable[[str], Any]

PATIENCE: Final = timedelta(seconds=30)
_STATES: Final = (State.INTENDED, State.CREATED, State.PROVEN, State.SERVING, State.RETIRING, State.RETIRED)


async def show_endpoints(settings: Settings, say: Say) -> bool:
    """Say what is written down about our endpoints; False where nothing is. Raises `DatabaseUnavailable`."""
    async with _opened(settings) as database:
        repository = EndpointRepository(database)
        endpoints = await repository.endpoints()
        secrets = await repository.secrets(now=SystemClock().now())
        entries = await repository.history(limit=20)
    if not endpoints:
        say("no endpoint yet: `rivya-receiver serve` registers it")
        return False
    for endpoint in endpoints:
        if endpoint.state is not State.RETIRED or endpoint is current(endpoints):
            for line in _endpoint_lines(endpoint, [secret for secret in secrets if secret.endpoint_id == endpoint.id]):
                say(line)
    say("\nhistory, newest first:")
    for entry in entries:
        say(f"  {_time(entry.recorded_at)}  {entry.event:<20} {entry.detail or ''}".rstrip())
    return True


async def rotate_secret(settings: Settings, say: Say) -> bool:
    """Write down that a new secret is wanted, and wait until the serving process has it. False if it does not yet."""
    async with _opened(settings) as database:
        commands = EndpointCommands(database, clock=SystemClock())
        try:
            wanted = await commands.request_rotation()
        except EndpointUnknown as error:
            say(error.message)
            return False
        if await commands.rotated(wanted, patience=PATIENCE):
            say(f"a new secret is stored; the old one is accepted for another {settings.receiver_secret_overlap}")
            return True
        say("wanted, and written down, but nothing has done it yet: is `rivya-receiver serve` running? see /readyz")
        return False


async def repin_scheme(settings: Settings, say: Say) -> bool:
    """Have the signature scheme proved anew."""
    async with _opened(settings) as database:
        try:
            endpoint = await EndpointCommands(database, clock=SystemClock()).repin()
        except EndpointUnknown as error:
            say(error.message)
            return False
        say(f"no longer pinned: {endpoint.scheme or 'nothing was'}; the next delivery proves the scheme anew")
        return True


async def reencrypt(settings: Settings, say: Say) -> bool:
    """Encrypt every stored secret under the newest key. Raises `DecryptionFailed`, and then nothing was changed."""
    keys = SecretBox([key.get_secret_value() for key in settings.receiver_encryption_keys])
    async with _opened(settings) as database:
        done = await reencrypt_secrets(database, keys)
    say(f"{done.changed} of {done.total} stored secrets encrypted anew; all are under key {keys.newest} now")
    return True


class _opened:  # noqa: N801 - a context, used like a function
    """The database of the settings, closed at the end."""

    def __init__(self, settings: Settings) -> None:
        self._database = Database(settings.database_url)

    async def __aenter__(self) -> Database:
        return self._database

    async def __aexit__(self, *_: object) -> None:
        await self._database.dispose()


def _endpoint_lines(endpoint: Endpoint, secrets: Sequence[StoredSecret]) -> list[str]:
    url = masked(endpoint.url, endpoint.path_key) if endpoint.url else "as you made it"
    lines = [
        f"endpoint {endpoint.rivya_id or '(not known at Rivya yet)'}",
        f"  state        {_life(endpoint.state)}, since {_time(endpoint.state_since)}",
        f"  url          {url}",
        *_scheme(endpoint),
        f"  deliveries   last verified {_time(endpoint.last_verified_at)}, refused since: {endpoint.refusals}",
        f"  Rivya counts {endpoint.failure_count} failures, last success {_time(endpoint.last_success_at)}",
    ]
    if endpoint.is_in_doubt:
        lines.append("  in doubt     a secret was asked for, and its answer is not stored: it is asked for again")
    if endpoint.last_error is not None:
        lines.append(f"  last error   {endpoint.last_error}")
    for secret in secrets:
        until = "current" if secret.valid_until is None else f"accepted until {_time(secret.valid_until)}"
        lines.append(f"  secret       {until}, since {_time(secret.valid_from)}, proven {_time(secret.proven_at)}")
    return lines


def _life(state: State) -> str:
    if state not in _STATES:
        return state
    return " → ".join(f"[{known}]" if known is state else str(known) for known in _STATES)


def _scheme(endpoint: Endpoint) -> list[str]:
    if endpoint.scheme is None:
        return ["  scheme       not proven yet: the first delivery will"]
    scheme: Scheme = parse_scheme(endpoint.scheme)
    headers = ", ".join(f"{option}: {scheme.header(option)}" for option in scheme.rules.headers)
    lines = [
        f"  scheme       {scheme.family}; headers {headers}; encoding {scheme.encoding}; key form {scheme.key_form}",
        f"  proven       {_time(endpoint.proven_at)} by {endpoint.proven_by}",
    ]
    if endpoint.other_scheme is not None:
        lines.append(f"  contradicted {endpoint.other_scheme_count} deliveries prove {endpoint.other_scheme} instead")
    return lines


def _time(time: datetime | None) -> str:
    return "never" if time is None else f"{time:%Y-%m-%d %H:%M:%SZ}"


# The words of `rivya-receiver endpoint` and of `rivya-receiver keys`.


endpoint_commands = typer.Typer(help="Our registration with Rivya; alone: show it.")
key_commands = typer.Typer(no_args_is_help=True, help="Encryption keys.")

Act = Callable[[Settings, Callable[[str], Any]], Coroutine[Any, Any, bool]]


@endpoint_commands.callback(invoke_without_command=True)
def show(context: typer.Context) -> None:
    """Show our endpoints: state, scheme and what proved it, secrets (when, never which), history."""
    if context.invoked_subcommand is None:
        _do(show_endpoints)


@endpoint_commands.command()
def rotate() -> None:
    """Have Rivya make a new signing secret; the old one goes on being accepted for RECEIVER_SECRET_OVERLAP."""
    _do(rotate_secret)


@endpoint_commands.command()
def repin() -> None:
    """Forget the pinned signature scheme, so that the next delivery proves it anew."""
    _do(repin_scheme)


@key_commands.command("generate")
def generate_key() -> None:
    """Print a fresh key for RECEIVER_ENCRYPTION_KEYS."""
    typer.echo(Fernet.generate_key().decode())


@key_commands.command("rotate")
def rotate_keys() -> None:
    """Encrypt the stored secrets under the first of RECEIVER_ENCRYPTION_KEYS, so that the others can be put away."""
    _do(reencrypt)


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
    except DecryptionFailed as error:
        typer.echo(f"RECEIVER_ENCRYPTION_KEYS: {error}; nothing was changed", err=True)
        sys.exit(2)
    except DatabaseUnavailable as error:
        typer.echo(f"DATABASE_URL: the database can't be used ({error.reason or 'unavailable'})", err=True)
        sys.exit(1)
    sys.exit(0 if done else 1)
