"""The commands `endpoint …` and `keys rotate`: show our registration, replace its secret, prove its scheme again."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

import typer
from pydantic import BaseModel

from app.cli.client.output import print_json
from app.core.clock import SystemClock
from app.core.database import Database
from app.core.encryption import SecretBox
from app.core.settings import Settings
from app.endpoint.models import Endpoint, State, current, masked
from app.endpoint.repository import EndpointRepository, StoredSecret, reencrypt_secrets
from app.endpoint.schemas import EndpointView, EntryView
from app.endpoint.service import EndpointCommands
from app.rivya.schemes import parse_scheme

_ROTATION_TIMEOUT: Final = timedelta(seconds=30)
_STATES: Final = (State.INTENDED, State.CREATED, State.PROVEN, State.SERVING, State.RETIRING, State.RETIRED)


async def show(_settings: Settings, database: Database, *, as_json: bool) -> bool:
    """Print the endpoints that are in use and the newest history; False if there is no endpoint."""
    repository = EndpointRepository(database)
    endpoints = await repository.endpoints()
    secrets = await repository.secrets(now=SystemClock().now())
    history = await repository.history(limit=20)
    used = [endpoint for endpoint in endpoints if endpoint.state is not State.RETIRED or endpoint is current(endpoints)]
    own = {endpoint.id: [secret for secret in secrets if secret.endpoint_id == endpoint.id] for endpoint in used}
    if as_json:
        views = [EndpointView.of(each, own[each.id], scheme=each.scheme, shows_path=False) for each in used]
        entries = [EntryView.model_validate(entry) for entry in history]
        shown: dict[str, Sequence[BaseModel]] = {"endpoints": views, "history": entries}
        print_json({name: [view.model_dump(mode="json") for view in rows] for name, rows in shown.items()})
        return bool(endpoints)
    if not endpoints:
        typer.echo("no endpoint yet: `rivya-receiver serve` registers it")
        return False
    for endpoint in used:
        typer.echo("\n".join(_lines(endpoint, own[endpoint.id])))
    typer.echo("\nhistory, newest first:")
    for entry in history:
        typer.echo(f"  {_time(entry.recorded_at)}  {entry.event:<20} {entry.detail or ''}".rstrip())
    return True


async def rotate(settings: Settings, database: Database) -> bool:
    """Request a new secret and wait until the serving process has it; False if that takes over 30 seconds."""
    commands = EndpointCommands(database, clock=SystemClock())
    if await commands.rotated(await commands.request_rotation(), patience=_ROTATION_TIMEOUT):
        typer.echo(f"a new secret is stored; the old one is accepted for another {settings.receiver_secret_overlap}")
        return True
    typer.echo("requested, but no process has done it yet: is `rivya-receiver serve` running? see /readyz")
    return False


async def repin(_settings: Settings, database: Database) -> bool:
    """Remove the pinned signature scheme."""
    endpoint = await EndpointCommands(database, clock=SystemClock()).repin()
    typer.echo(f"no longer pinned: {endpoint.scheme or 'nothing was'}; the next delivery proves the scheme anew")
    return True


async def reencrypt(settings: Settings, database: Database) -> bool:
    """Encrypt every stored secret with the newest key. Raises `DecryptionFailed`; then nothing was changed."""
    keys = SecretBox([key.get_secret_value() for key in settings.receiver_encryption_keys])
    done = await reencrypt_secrets(database, keys)
    typer.echo(f"{done.changed} of {done.total} stored secrets encrypted anew; all are under key {keys.newest} now")
    return True


def _lines(endpoint: Endpoint, secrets: Sequence[StoredSecret]) -> Iterator[str]:
    path = " → ".join(f"[{state}]" if state is endpoint.state else str(state) for state in _STATES)
    yield f"endpoint {endpoint.rivya_id or '(not known at Rivya yet)'}"
    yield f"  state        {path if endpoint.state in _STATES else endpoint.state}, since {_time(endpoint.state_since)}"
    yield f"  url          {masked(endpoint.url, endpoint.path_key) if endpoint.url else 'as you made it'}"
    yield from _scheme_lines(endpoint)
    yield f"  deliveries   last verified {_time(endpoint.last_verified_at)}, refused since: {endpoint.refusals}"
    yield f"  Rivya counts {endpoint.failure_count} failures, last success {_time(endpoint.last_success_at)}"
    if endpoint.is_in_doubt:
        yield "  in doubt     a secret was requested, and the response is not stored: it is requested again"
    if endpoint.last_error is not None:
        yield f"  last error   {endpoint.last_error}"
    for secret in secrets:
        until = "current" if secret.valid_until is None else f"accepted until {_time(secret.valid_until)}"
        yield f"  secret       {until}, since {_time(secret.valid_from)}, proven {_time(secret.proven_at)}"


def _scheme_lines(endpoint: Endpoint) -> Iterator[str]:
    if endpoint.scheme is None:
        yield "  scheme       not proven yet: the first delivery will"
        return
    scheme = parse_scheme(endpoint.scheme)
    headers = ", ".join(f"{option}: {scheme.header(option)}" for option in scheme.rules.headers)
    yield f"  scheme       {scheme.family}; headers {headers}; encoding {scheme.encoding}; key form {scheme.key_form}"
    yield f"  proven       {_time(endpoint.proven_at)} by {endpoint.proven_by}"
    if endpoint.other_scheme is not None:
        yield f"  contradicted {endpoint.other_scheme_count} deliveries prove {endpoint.other_scheme} instead"


def _time(time: datetime | None) -> str:
    return "never" if time is None else f"{time:%Y-%m-%d %H:%M:%SZ}"
