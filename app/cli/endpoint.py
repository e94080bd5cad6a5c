"""The commands `endpoint …` and `keys rotate`: show our registration, replace its secret, prove its scheme again."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import typer
from pydantic import BaseModel

from app.cli.client import output
from app.cli.client.output import shown_wait
from app.core.audit import COMMAND_LINE, write_audit
from app.core.clock import SystemClock
from app.core.database import Database
from app.core.encryption import DecryptionFailed, SecretBox
from app.core.leases import Leases
from app.core.settings import Settings
from app.endpoint.models import Endpoint, State, current, live, masked
from app.endpoint.reconciler import Reconciler
from app.endpoint.repository import EndpointRepository, StoredSecret, endpoint_secrets, reencrypt_secrets
from app.endpoint.schemas import EndpointView, EntryView, OrphanView
from app.endpoint.service import EndpointCommands, Orphans
from app.notifications.tables import subscriptions
from app.rivya.client import RivyaClient
from app.rivya.schemes import parse_scheme

_ROTATION_TIMEOUT: Final = timedelta(seconds=30)
_STATES: Final = (State.INTENDED, State.CREATED, State.PROVEN, State.SERVING, State.RETIRING, State.RETIRED)


async def show(_settings: Settings, database: Database, *, as_json: bool) -> bool:
    """Print the endpoints that are in use and the newest history; False if there is no endpoint."""
    repository = EndpointRepository(database)
    endpoints = await repository.endpoints()
    valid = await repository.secrets(now=SystemClock().now())
    history = await repository.history(limit=20)
    used = [endpoint for endpoint in endpoints if endpoint.state is not State.RETIRED or endpoint is current(endpoints)]
    own = {endpoint.id: [secret for secret in valid if secret.endpoint_id == endpoint.id] for endpoint in used}
    if as_json:
        views = [EndpointView.of(each, own[each.id], scheme=each.scheme, shows_path=False) for each in used]
        entries = [EntryView.model_validate(entry) for entry in history]
        shown: dict[str, Sequence[BaseModel]] = {"endpoints": views, "history": entries}
        output.print_json({name: [view.model_dump(mode="json") for view in rows] for name, rows in shown.items()})
        return bool(endpoints)
    if not endpoints:
        typer.echo("no endpoint yet: `rivya-receiver serve` registers it")
        return False
    for endpoint in used:
        typer.echo("\n".join(_lines(endpoint, own[endpoint.id])))
    typer.echo("\nhistory, newest first:")
    for entry in history:
        typer.echo(f"  {output.time(entry.recorded_at)}  {entry.event:<20} {entry.detail or ''}".rstrip())
    return True


async def rotate(settings: Settings, database: Database, *, as_json: bool) -> bool:
    """Request a new secret and wait until the serving process has it; False if that takes over 30 seconds."""
    commands = EndpointCommands(database, clock=SystemClock())
    with shown_wait("for a running receiver to store the new secret"):
        is_stored = await commands.rotated(await commands.request_rotation(), patience=_ROTATION_TIMEOUT)
    text = "requested, but no process has done it yet: is `rivya-receiver serve` running? see /readyz"
    if is_stored:
        text = f"a new secret is stored; the old one is accepted for another {settings.receiver_secret_overlap}"
    output.show({"rotated": is_stored}, text, as_json=as_json)
    return is_stored


async def orphans(settings: Settings, database: Database, *, as_json: bool) -> bool:
    """Print the endpoints that a lost database left at Rivya."""
    async with _opened_orphans(settings, database) as opened:
        views = [OrphanView.of(orphan).model_dump(mode="json") for orphan in await opened.find()]
    document = {"object": "list", "data": views}
    output.show(document, output.orphans(document), as_json=as_json)
    return True


async def remove_orphan(settings: Settings, database: Database, rivya_id: str, *, as_json: bool) -> bool:
    """Remove one of these at Rivya. Raises `NotFound` for any other endpoint."""
    async with _opened_orphans(settings, database) as opened:
        document = OrphanView.of(await opened.remove(rivya_id)).model_dump(mode="json")
    output.show(document, output.removed(document), as_json=as_json)
    return True


@asynccontextmanager
async def _opened_orphans(settings: Settings, database: Database) -> AsyncIterator[Orphans]:
    public_url = settings.receiver_public_url if settings.registers_endpoint else None
    async with RivyaClient(settings.rivya_base_url, settings.rivya_api_key.get_secret_value()) as client:
        with shown_wait("for Rivya's answer"):
            yield Orphans(client, EndpointRepository(database), clock=SystemClock(), public_url=public_url)


async def reset_secret(settings: Settings, database: Database, *, yes: bool, as_json: bool) -> bool:
    """Delete the secrets that can't be decrypted, on confirmation, and get a new one; False if that was not done."""
    keys = SecretBox([key.get_secret_value() for key in settings.receiver_encryption_keys])
    repository, clock = EndpointRepository(database), SystemClock()
    lost = [secret for secret in await repository.all_secrets() if not _can_decrypt(keys, secret.sealed)]
    if not lost:
        text = "every stored secret can be decrypted, so none is lost; `endpoint rotate` replaces the current one"
        output.show({"deleted": 0, "stored": False}, text, as_json=as_json)
        return False
    needed = ", ".join(sorted({secret.sealed.partition(":")[0] for secret in lost}))
    typer.echo(_RESET.format(count=len(lost), needed=needed), err=as_json)
    if not yes and not typer.confirm("Is the key lost, and shall Rivya be asked for a new secret?", err=as_json):
        return False
    async with database.transaction() as connection:
        await write_audit(connection, COMMAND_LINE, "endpoint reset-secret", now=clock.now(), target=None)
    await repository.delete_secrets(lost, now=clock.now(), detail=needed)
    async with RivyaClient(settings.rivya_base_url, settings.rivya_api_key.get_secret_value()) as client:
        leases = Leases(database, holder=secrets.token_hex(8))
        url = settings.receiver_public_url if settings.registers_endpoint else None
        reconciler = Reconciler(client, database, clock=clock, leases=leases, keys=keys, public_url=url)
        try:
            with shown_wait("for Rivya's answer, or for another process that looks after the registration"):
                is_stored = await _registered(reconciler, repository)
        finally:
            await reconciler.stop()
    text = "a new secret is stored" if is_stored else "deleted; `rivya-receiver serve` gets a new one from Rivya"
    output.show({"deleted": len(lost), "stored": is_stored}, text, as_json=as_json)
    return True


async def _registered(reconciler: Reconciler, repository: EndpointRepository) -> bool:
    """Whether the new secret is stored; waits for the lease of a process that has just ended."""
    for _ in range(_RESET_TRIES):
        pause = await reconciler.run_once()
        endpoint = live(await repository.endpoints())
        if endpoint is not None and endpoint.secret_since is not None:
            return True
        if reconciler.retry_in:
            return False
        await asyncio.sleep(pause)
    return False


_RESET_TRIES: Final = 20
_RESET: Final = """\
{count} stored secrets can't be decrypted with RECEIVER_ENCRYPTION_KEYS: they need the key {needed}.
If you still have that key, add it at the end of RECEIVER_ENCRYPTION_KEYS instead.
If it is lost: the secrets are deleted and Rivya makes a new one. Deliveries signed with the old one that are still on
their way are refused; their outcomes are polled. Generations and deliveries are kept."""


def _can_decrypt(keys: SecretBox, sealed: str) -> bool:
    try:
        keys.decrypt(sealed)
    except DecryptionFailed:
        return False
    return True


async def repin(_settings: Settings, database: Database, *, as_json: bool) -> bool:
    """Remove the pinned signature scheme."""
    endpoint = await EndpointCommands(database, clock=SystemClock()).repin()
    text = f"no longer pinned: {endpoint.scheme or 'nothing was'}; the next delivery proves the scheme anew"
    output.show({"no_longer_pinned": endpoint.scheme}, text, as_json=as_json)
    return True


async def reencrypt(settings: Settings, database: Database, *, as_json: bool) -> bool:
    """Encrypt every stored secret with the newest key. Raises `DecryptionFailed`; then nothing was changed."""
    keys = SecretBox([key.get_secret_value() for key in settings.receiver_encryption_keys])
    columns = (endpoint_secrets.c.sealed, subscriptions.c.secret, subscriptions.c.previous_secret)
    done = await reencrypt_secrets(database, keys, columns)
    text = f"{done.changed} of {done.total} stored secrets encrypted anew; all are under key {keys.newest} now"
    output.show({"changed": done.changed, "total": done.total, "key": keys.newest}, text, as_json=as_json)
    return True


def _lines(endpoint: Endpoint, own: Sequence[StoredSecret]) -> Iterator[str]:
    path = " → ".join(f"[{state}]" if state is endpoint.state else str(state) for state in _STATES)
    yield f"endpoint {endpoint.rivya_id or '(not known at Rivya yet)'}"
    state = path if endpoint.state in _STATES else endpoint.state
    yield f"  state        {state}, since {output.time(endpoint.state_since)}"
    yield f"  url          {masked(endpoint.url, endpoint.path_key) if endpoint.url else 'as you made it'}"
    yield from _scheme_lines(endpoint)
    yield f"  deliveries   last verified {output.time(endpoint.last_verified_at)}, refused since: {endpoint.refusals}"
    yield f"  Rivya counts {endpoint.failure_count} failures, last success {output.time(endpoint.last_success_at)}"
    if endpoint.is_in_doubt:
        yield "  in doubt     a secret was requested, and the response is not stored: it is requested again"
    if endpoint.last_error is not None:
        yield f"  last error   {endpoint.last_error}"
    for secret in own:
        until = "current" if secret.valid_until is None else f"accepted until {output.time(secret.valid_until)}"
        yield f"  secret       {until}, since {output.time(secret.valid_from)}, proven {output.time(secret.proven_at)}"


def _scheme_lines(endpoint: Endpoint) -> Iterator[str]:
    if endpoint.scheme is None:
        yield "  scheme       not proven yet: the first delivery will"
        return
    scheme = parse_scheme(endpoint.scheme)
    headers = ", ".join(f"{option}: {scheme.header(option)}" for option in scheme.rules.headers)
    yield f"  scheme       {scheme.family}; headers {headers}; encoding {scheme.encoding}; key form {scheme.key_form}"
    yield f"  proven       {output.time(endpoint.proven_at)} by {endpoint.proven_by}"
    if endpoint.other_scheme is not None:
        yield f"  contradicted {endpoint.other_scheme_count} deliveries prove {endpoint.other_scheme} instead"
