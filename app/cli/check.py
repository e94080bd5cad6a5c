"""The commands `check`, which tests what a deployment needs without changing anything, and `config`."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import typer
import uvloop
from sqlalchemy.exc import SQLAlchemyError

from app.cli.client.output import fail, print_json, shown_wait, table
from app.core import logs, migrations
from app.core.auth import ApiToken
from app.core.clock import SystemClock
from app.core.database import Database
from app.core.encryption import DecryptionFailed, SecretBox
from app.core.errors import DatabaseUnavailable, HealthCheck
from app.core.records import uuid7
from app.core.setting_sources import SettingsInvalid, read_sources
from app.core.settings import Settings, load, warnings
from app.endpoint.errors import explain
from app.endpoint.health import EndpointHealth
from app.endpoint.inspection import describe_orphans, find_orphans
from app.endpoint.keyring import Keyring
from app.endpoint.models import callback_url, current, is_same_place, live
from app.endpoint.probe import ProbeKey
from app.endpoint.reachability import Reachability
from app.endpoint.repository import EndpointRepository
from app.ratelimit.limiter import RateLimiter
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError, RivyaForbidden, RivyaRateLimited, RivyaRefused, RivyaUnauthorized
from app.rivya.schemes import Scheme, SchemeInvalid, wanted_scheme

_UNREADABLE = (DatabaseUnavailable, SQLAlchemyError)
"""The database does not answer, or not what is asked."""
_MIGRATES = "`rivya-receiver serve` sees to it unless RECEIVER_MIGRATE_ON_START=false; so does `rivya-receiver migrate`"
_NAMES = {"signature_scheme": "scheme in use"}  # "signature scheme" is the line of the setting

_Call = Callable[[], Awaitable[Any]]


def run_checks(*, is_public: bool, as_json: bool) -> None:
    """Check with the settings of the environment and print the results; the exit status is 1 unless all is well."""
    logs.configure("console", least=logging.ERROR)
    checks: list[HealthCheck] = []

    def show(check: HealthCheck) -> None:
        checks.append(check)
        if not as_json:
            typer.echo(line(check))

    try:
        settings = load()
        for warning in warnings():
            typer.echo(f"warn  settings: {warning}", err=as_json)
        uvloop.run(check_deployment(settings, show, is_public=is_public))
    except SettingsInvalid as error:
        for detail in str(error).splitlines():
            show(_result("settings", False, detail))
    all_ok = all(check.ok for check in checks)
    if as_json:
        print_json({"ok": all_ok, "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks]})
    raise typer.Exit(0 if all_ok else 1)


def line(check: HealthCheck) -> str:
    """A check and its result as one line."""
    name = _NAMES.get(check.name, check.name.replace("_", " "))
    return f"{'ok  ' if check.ok else 'FAIL'}  {name}: {check.detail}"


async def check_deployment(settings: Settings, show: Callable[[HealthCheck], Any], *, is_public: bool = False) -> None:
    """Pass each thing tested to `show`, also after a failure.

    `is_public`: also test the way from Rivya to us, which sends a test delivery.
    """
    async with aclosing(_checks(settings, is_public=is_public)) as checks:
        async for check in checks:
            show(check)


def _result(name: str, ok: bool, detail: str) -> HealthCheck:
    return HealthCheck(name, ok, detail, is_required=True)


async def _checks(settings: Settings, *, is_public: bool) -> AsyncGenerator[HealthCheck, None]:
    count = len(settings.receiver_api_tokens)
    tokens = f"{count} API token{'s' if count > 1 else ''}" if count else "no RECEIVER_API_TOKENS: nobody may call"
    yield _result("settings", True, f"complete; {tokens}")
    scheme, check = _scheme(settings)
    yield check
    registers, url = settings.registers_endpoint, f"{settings.receiver_public_url} has the form that is needed"
    unused = "not needed: RIVYA_SIGNING_SECRET is set, nothing is registered"
    yield _result("public URL", True, url if registers else unused)
    database = Database(settings.database_url)
    try:
        with shown_wait("for the database"):
            reached = await _database(database)
            yield reached
            migrated = await _migrations(database, reached)
            yield migrated
        async with RivyaClient(settings.rivya_base_url, settings.rivya_api_key.get_secret_value()) as client:
            with shown_wait(f"for {settings.rivya_base_url}"):
                async for check in _api_key(client):
                    yield check
            groups = [
                _Group(["endpoint registered"], _registration(client, database, settings), needs_tables=registers),
                _Group(
                    ["signing secret", "scheme in use"], _deliveries(database, settings, scheme), needs_tables=registers
                ),
                _Group(["polling"], _polling(database, settings)),
                _Group(["public URL reached"], _reachability(client, database, settings)),
            ]
            for group in groups if is_public else groups[:-1]:
                with shown_wait(f"for the check of {group.names[0]}"):
                    async for check in group.run(is_migrated=migrated.ok):
                        yield check
    finally:
        await database.dispose()


@dataclass(frozen=True)
class _Group:
    """Checks that read the database."""

    names: Sequence[str]
    """The checks that are shown as unknown while they can't run; if one fails unexpectedly, only the first."""
    checks: AsyncIterator[HealthCheck]
    needs_tables: bool = True

    async def run(self, *, is_migrated: bool) -> AsyncIterator[HealthCheck]:
        if self.needs_tables and not is_migrated:
            for name in self.names:
                yield _result(name, False, "unknown until the database is migrated")
            return
        try:
            async for check in self.checks:
                yield check
        except DecryptionFailed as error:
            yield _result(self.names[0], False, f"RECEIVER_ENCRYPTION_KEYS: {error}")
        except _UNREADABLE as error:
            yield _result(self.names[0], False, _unknown(error))


def _scheme(settings: Settings) -> tuple[Scheme | None, HealthCheck]:
    """The scheme of the setting and its check; None for an invalid one, so that the other checks can run."""
    name, given = "signature scheme", settings.rivya_signature_scheme
    try:
        scheme = wanted_scheme(given)
    except SchemeInvalid as error:
        return None, _result(name, False, f"RIVYA_SIGNATURE_SCHEME: {error}")
    return scheme, _result(name, True, "auto: found out by proof" if scheme is None else str(scheme))


async def _database(database: Database) -> HealthCheck:
    name, url = "database", database.url.render_as_string(hide_password=True)
    if obstacle := database.obstacle():
        return _result(name, False, f"{url} can't be used ({obstacle}); see DATABASE_URL")
    if not database.exists:
        return _result(name, False, f"{url} does not exist yet; `rivya-receiver serve` makes it")
    try:
        await database.ping()
        if await database.is_read_only():
            return _result(name, False, f"{url} takes no writes: it is a standby, or set to be read-only")
    except _UNREADABLE as error:
        return _result(name, False, f"{url} can't be used ({_cause(error)}); see DATABASE_URL")
    return _result(name, True, f"{url} answers")


async def _migrations(database: Database, reached: HealthCheck) -> HealthCheck:
    name, wanted = "migrations", migrations.head()
    if not reached.ok:
        return _result(name, False, f"unknown while the database can't be reached; {wanted} is needed")
    try:
        revision = await migrations.current(database)
        remedy = _MIGRATES if await migrations.may_migrate(database) else migrations.NO_RIGHTS_HELP
    except migrations.TableTaken as error:
        return _result(name, False, str(error))
    except _UNREADABLE as error:
        return _result(name, False, f"{_unknown(error)}; {wanted} is needed")
    if revision is not None and revision not in migrations.known():
        return _result(name, True, f"at {revision}, which a later release made; this one serves on it")
    if revision != wanted:
        return _result(name, False, f"at {revision or 'none'}, {wanted} is needed; {remedy}")
    return _result(name, True, f"at {revision}")


# Rivya: it can be reached, the API key is valid and has each scope that we need.


async def _api_key(client: RivyaClient) -> AsyncIterator[HealthCheck]:
    yield await _rivya(client)
    # Each call reads only, or is refused after Rivya has checked the scope: no such generation, no model in the body.
    key = f"check-{uuid7(SystemClock().now())}"  # a new one, because Rivya repeats its response to a known key
    calls: dict[str, _Call] = {
        "generations:read": lambda: client.get_generation("task_that_does_not_exist"),
        "generations:create": lambda: client.create_generation(b"{}", idempotency_key=key),
        "webhooks:manage": client.list_endpoints,
    }
    advice = "see RIVYA_API_KEY"
    valid = await _call("API key valid", calls["generations:read"], "accepted", denied=RivyaUnauthorized, advice=advice)
    yield valid
    advice = "give the key this scope at Rivya"
    for scope, call in calls.items():
        if valid.ok:
            yield await _call(f"scope {scope}", call, "granted", denied=RivyaForbidden, advice=advice)
        else:
            yield _result(f"scope {scope}", False, "unknown until the key is valid")


async def _rivya(client: RivyaClient) -> HealthCheck:
    name = "Rivya reachable"
    try:
        models = await client.models()
    except RivyaRefused as error:
        return _result(name, True, f"answers, though not with its models ({error.code})")
    except RivyaError as error:
        return _result(name, False, f"{error}; see RIVYA_BASE_URL")
    return _result(name, True, f"lists {len(models)} models")


async def _call(name: str, call: _Call, granted: str, *, denied: type[RivyaRefused], advice: str) -> HealthCheck:
    try:
        await call()
    except denied as error:
        return _result(name, False, f"{error.code}; {advice}")
    except RivyaError as error:
        # Any other refusal proves that Rivya has accepted the key and its scope before.
        if not isinstance(error, RivyaRefused) or isinstance(error, RivyaUnauthorized | RivyaRateLimited):
            return _result(name, False, f"unknown: {error}")
    return _result(name, True, granted)


# Our registration, and what is stored. These read the database and may raise what `_Group.run` catches.


async def _registration(client: RivyaClient, database: Database, settings: Settings) -> AsyncIterator[HealthCheck]:
    name = "endpoint registered"
    if settings.receiver_public_url is None or not settings.registers_endpoint:
        yield _result(name, True, "made by hand: RIVYA_SIGNING_SECRET is set")
        return
    repository = EndpointRepository(database)
    endpoints = await repository.endpoints()
    serving, newest = live(endpoints), current(endpoints)
    if serving is None or serving.rivya_id is None:
        error = None if newest is None else newest.last_error
        why = "; `rivya-receiver serve` registers it" if error is None else f": {explain(error)}"
        yield _result(name, False, f"not yet{why}")
        return
    try:
        endpoint = await client.get_endpoint(serving.rivya_id)
    except RivyaError as error:
        yield _result(name, False, f"{serving.rivya_id}: {error}")
        return
    if is_same_place(endpoint.url, callback_url(settings.receiver_public_url, serving.path_key)):
        detail = f"{serving.rivya_id} is {endpoint.status or 'known'} at Rivya"
        yield _result(name, endpoint.status in (None, "active"), detail)
    else:
        detail = f"{serving.rivya_id} leads elsewhere than RECEIVER_PUBLIC_URL; `rivya-receiver serve` moves it"
        yield _result(name, False, detail)
    with suppress(RivyaError):
        listed = (await client.list_endpoints()).endpoints
        if orphans := await find_orphans(repository, listed, public_url=settings.receiver_public_url):
            yield describe_orphans(orphans)


async def _deliveries(database: Database, settings: Settings, scheme: Scheme | None) -> AsyncIterator[HealthCheck]:
    """The signing secret can be decrypted, deliveries are verified."""
    clock, fixed = SystemClock(), settings.rivya_signing_secret
    keys = SecretBox([key.get_secret_value() for key in settings.receiver_encryption_keys])
    fixed_secret = None if fixed is None else fixed.get_secret_value()
    keyring = Keyring(database, clock=clock, keys=keys, scheme=scheme, fixed_secret=fixed_secret)
    await keyring.load()
    for check in await EndpointHealth(database, keyring, clock=clock).health_checks():
        if check.name != "endpoint":  # `_registration` asks Rivya about it
            yield check


async def _polling(database: Database, settings: Settings) -> AsyncIterator[HealthCheck]:
    key, rate = settings.rivya_api_key.get_secret_value(), settings.receiver_poll_rate
    yield await RateLimiter(database, SystemClock(), rate=rate, api_key=key).health()


async def _reachability(client: RivyaClient, database: Database, settings: Settings) -> AsyncIterator[HealthCheck]:
    """The way from Rivya to us: the proxy, TLS, clocks, a test delivery."""
    reachability = Reachability(
        client,
        EndpointRepository(database),
        clock=SystemClock(),
        key=ProbeKey(settings.rivya_api_key.get_secret_value()),
        public_url=settings.receiver_public_url,
    )
    async for check in reachability.health_checks():
        yield check


def _unknown(error: Exception) -> str:
    return f"unknown: the database gives no answer ({_cause(error)})"


def _cause(error: Exception) -> str:
    reason = error.reason if isinstance(error, DatabaseUnavailable) else ""
    return reason or type(error.__cause__ or error).__name__


def show_settings(*, as_json: bool) -> None:
    """Print each setting in force, its source, and no secret; the exit status is 2 for invalid settings."""
    try:
        settings, sources = load(), read_sources(Settings)
    except SettingsInvalid as error:
        fail(str(error), status=2)
    values = dict(settings)
    values["database_url"] = Database(settings.database_url).url.render_as_string(hide_password=True)
    rows = [
        (name.upper(), _shown(value), sources[name][0] if name in sources else "default")
        for name, value in values.items()
    ]
    if as_json:
        print_json([{"name": name, "value": value, "source": source} for name, value, source in rows])
    else:
        typer.echo(table(("SETTING", "VALUE", "FROM"), rows))


def _shown(value: Any) -> str | int | float | None:  # noqa: ANN401 - the value of any setting
    """The value for people and programs; a secret becomes asterisks."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, tuple):
        return ", ".join(str(_shown(item)) for item in value)
    return f"{value.name} ({value.role})" if isinstance(value, ApiToken) else str(value)
