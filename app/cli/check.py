"""Tests everything that a deployment needs, a line each, without changing or paying for anything."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.core import migrations
from app.core.clock import SystemClock
from app.core.database import Database
from app.core.encryption import DecryptionFailed, SecretBox
from app.core.errors import DatabaseUnavailable, HealthCheck
from app.core.ids import uuid7
from app.core.settings import Settings
from app.endpoint.errors import explain
from app.endpoint.health import EndpointHealth
from app.endpoint.keyring import Keyring
from app.endpoint.models import Endpoint, callback_url, current, is_same_place, live
from app.endpoint.probe import ProbeKey
from app.endpoint.reachability import Reachability
from app.endpoint.repository import EndpointRepository
from app.ratelimit.limiter import RateLimiter
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError, RivyaForbidden, RivyaRateLimited, RivyaRefused, RivyaUnauthorized
from app.rivya.schemes import Scheme, SchemeInvalid, wanted_scheme

# One line of `rivya-receiver check`: what was tested, whether it is well, and what to do where it isn't.


@dataclass(frozen=True, slots=True)
class Line:
    """One thing tested; what could not be tested is not well either."""

    name: str
    ok: bool
    detail: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name}: {self.detail}"


Say = Callable[[str], Any]


async def check_deployment(settings: Settings, say: Say, *, is_public: bool = False) -> bool:
    """Say a line for each thing tested, whatever became of those before it; True if all are well.

    `is_public`: test the way from Rivya to us as well, which sends a test delivery.
    """
    all_ok = True
    async with aclosing(_lines(settings, is_public=is_public)) as lines:
        async for line in lines:
            say(str(line))
            all_ok = all_ok and line.ok
    return all_ok


async def _lines(settings: Settings, *, is_public: bool) -> AsyncGenerator[Line, None]:
    yield _settings(settings)
    scheme, line = _scheme(settings)
    yield line
    yield _public_url(settings)
    database = Database(settings.database_url)
    try:
        reached = await check_database(database)
        yield reached
        migrated = await check_migrations(database, reached)
        yield migrated
        async with RivyaClient(settings.rivya_base_url, settings.rivya_api_key.get_secret_value()) as client:
            async for line in check_key(client):
                yield line
            yield await check_registration(client, database, settings, migrated=migrated)
        async for line in check_stored(database, settings, scheme=scheme, migrated=migrated):
            yield line
        if is_public:
            async for line in check_public_url(database, settings, migrated=migrated):
                yield line
    finally:
        await database.dispose()


def _settings(settings: Settings) -> Line:
    tokens = len(settings.receiver_api_tokens)
    known = f"{tokens} API token{'s' if tokens > 1 else ''}" if tokens else "no RECEIVER_API_TOKENS: nobody may call"
    return Line("settings", True, f"complete; {known}")


def _scheme(settings: Settings) -> tuple[Scheme | None, Line]:
    """The scheme with its line; where it is bad, none, so that the rest can be tested all the same."""
    name, given = "signature scheme", settings.rivya_signature_scheme
    try:
        scheme = wanted_scheme(given)
    except SchemeInvalid as error:
        return None, Line(name, False, f"RIVYA_SIGNATURE_SCHEME: got {given!r}; {error}")
    return scheme, Line(name, True, "auto: found out by proof" if scheme is None else str(scheme))


def _public_url(settings: Settings) -> Line:
    if not settings.registers_endpoint:
        return Line("public URL", True, "not needed: RIVYA_SIGNING_SECRET is set, nothing is registered")
    return Line("public URL", True, f"{settings.receiver_public_url} has the form that is needed")


# What `rivya-receiver check` finds in the database: it answers, it is migrated, and how things stand in it.


UNTELLING = (DatabaseUnavailable, SQLAlchemyError)
"""The database is away, or refuses to show what is asked for."""

UNTIL_MIGRATED = "unknown until the database is migrated"

_NAMES = {"signature_scheme": "scheme in use"}  # beside the setting, which has a line of its own
_MIGRATES = "`rivya-receiver serve` sees to it unless RECEIVER_MIGRATE_ON_START=false; so does `alembic upgrade head`"


async def check_database(database: Database) -> Line:
    """It answers. One that doesn't exist yet is not made by looking."""
    name, shown = "database", database.url.render_as_string(hide_password=True)
    if _is_to_be_made(database):
        return Line(name, False, f"{shown} does not exist yet; `rivya-receiver serve` makes it")
    try:
        await database.ping()
    except UNTELLING as error:
        return Line(name, False, f"{shown} can't be reached ({_cause(error)}); see DATABASE_URL")
    return Line(name, True, f"{shown} answers")


async def check_migrations(database: Database, reached: Line) -> Line:
    """It is at the revision that this code is written for."""
    name, wanted = "migrations", migrations.head()
    if not reached.ok:
        return Line(name, False, f"unknown while the database can't be reached; {wanted} is needed")
    try:
        revision = await migrations.current(database)
    except UNTELLING as error:
        return Line(name, False, f"{untold(error)}; {wanted} is needed")
    if revision is not None and revision not in migrations.known():
        return Line(name, True, f"at {revision}, which a later release made; this one serves on it")
    if revision != wanted:
        return Line(name, False, f"at {revision or 'none'}, {wanted} is needed; {_MIGRATES}")
    return Line(name, True, f"at {revision}")


async def check_stored(
    database: Database, settings: Settings, *, scheme: Scheme | None, migrated: Line
) -> AsyncIterator[Line]:
    """How things stand: the signing secret opens, deliveries are verified, polling goes on."""
    keyring = _keyring(database, settings, scheme)
    if migrated.ok or keyring.is_fixed:
        async for line in _lines_of_checks("signing secret", lambda: _deliveries(database, keyring)):
            yield line
    else:
        yield Line("signing secret", False, UNTIL_MIGRATED)
        yield Line("scheme in use", False, UNTIL_MIGRATED)
    if migrated.ok:
        async for line in _lines_of_checks("polling", lambda: _polling(database, settings)):
            yield line
    else:
        yield Line("polling", False, UNTIL_MIGRATED)


async def _lines_of_checks(name: str, ask: Callable[[], Awaitable[Sequence[HealthCheck]]]) -> AsyncIterator[Line]:
    """What was found, else why nothing could be."""
    try:
        for finding in await ask():
            yield Line(_NAMES.get(finding.name, finding.name.replace("_", " ")), finding.ok, finding.detail)
    except DecryptionFailed as error:
        yield Line(name, False, f"RECEIVER_ENCRYPTION_KEYS: {error}")
    except UNTELLING as error:
        yield Line(name, False, untold(error))


async def _deliveries(database: Database, keyring: Keyring) -> list[HealthCheck]:
    await keyring.load()
    checks = await EndpointHealth(database, keyring, clock=SystemClock()).health_checks()
    return [check for check in checks if check.name != "endpoint"]  # Rivya itself is asked about that


async def _polling(database: Database, settings: Settings) -> list[HealthCheck]:
    key, rate = settings.rivya_api_key.get_secret_value(), settings.receiver_poll_rate
    return [await RateLimiter(database, SystemClock(), rate=rate, api_key=key).health()]


def _keyring(database: Database, settings: Settings, scheme: Scheme | None) -> Keyring:
    keys = SecretBox([key.get_secret_value() for key in settings.receiver_encryption_keys])
    fixed = settings.rivya_signing_secret
    fixed_secret = None if fixed is None else fixed.get_secret_value()
    return Keyring(database, clock=SystemClock(), keys=keys, scheme=scheme, fixed_secret=fixed_secret)


def untold(error: Exception) -> str:
    """What to say where the database refused to show something."""
    return f"unknown: the database does not tell ({_cause(error)})"


def _is_to_be_made(database: Database) -> bool:
    return database.is_sqlite and not Path(str(database.url.database)).exists()


def _cause(error: Exception) -> str:
    return type(error.__cause__ or error).__name__


# What `rivya-receiver check` finds of our registration: written down here, and known, active and ours at Rivya.


_NAME = "endpoint registered"


async def check_registration(client: RivyaClient, database: Database, settings: Settings, *, migrated: Line) -> Line:
    """The endpoint that serves, as Rivya sees it."""
    if settings.receiver_public_url is None or not settings.registers_endpoint:
        return Line(_NAME, True, "made by hand: RIVYA_SIGNING_SECRET is set")
    if not migrated.ok:
        return Line(_NAME, False, UNTIL_MIGRATED)
    try:
        endpoints = await EndpointRepository(database).endpoints()
    except UNTELLING as error:
        return Line(_NAME, False, untold(error))
    serving = live(endpoints)
    if serving is None or serving.rivya_id is None:
        known = current(endpoints)
        why = "" if known is None or known.last_error is None else f": {explain(known.last_error)}"
        return Line(_NAME, False, f"not yet{why or '; `rivya-receiver serve` registers it'}")
    return await _at_rivya(client, serving, serving.rivya_id, settings.receiver_public_url)


async def _at_rivya(client: RivyaClient, serving: Endpoint, rivya_id: str, public_url: str) -> Line:
    try:
        endpoint = await client.get_endpoint(rivya_id)
    except RivyaError as error:
        return Line(_NAME, False, f"{rivya_id}: {error}")
    if not is_same_place(endpoint.url, callback_url(public_url, serving.path_key)):
        return Line(
            _NAME, False, f"{rivya_id} leads elsewhere than RECEIVER_PUBLIC_URL; `rivya-receiver serve` moves it"
        )
    return Line(_NAME, endpoint.status in (None, "active"), f"{rivya_id} is {endpoint.status or 'known'} at Rivya")


# What `rivya-receiver check --public` finds of the way from Rivya to us: the proxy, TLS, clocks, a test delivery.


async def check_public_url(database: Database, settings: Settings, *, migrated: Line) -> AsyncIterator[Line]:
    """A line for each thing looked at."""
    if not migrated.ok:
        yield Line("public URL reached", False, UNTIL_MIGRATED)
        return
    api_key = settings.rivya_api_key.get_secret_value()
    async with RivyaClient(settings.rivya_base_url, api_key) as client:
        reachability = Reachability(
            client,
            EndpointRepository(database),
            clock=SystemClock(),
            key=ProbeKey(api_key),
            public_url=settings.receiver_public_url,
        )
        try:
            async for finding in reachability.health_checks():
                yield Line(finding.name.replace("_", " "), finding.ok, finding.detail)
        except UNTELLING as error:
            yield Line("public URL reached", False, untold(error))


# What `rivya-receiver check` finds at Rivya: it answers, it takes our key, and the key has each scope we need.


# An id that no generation has, and a body that names no model: refused, but only after the scope was looked at.
_NO_GENERATION = "task_that_does_not_exist"
_NO_CREATE = b"{}"

_Call = Callable[[], Awaitable[Any]]


async def check_key(client: RivyaClient) -> AsyncIterator[Line]:
    """Rivya can be reached, our key is valid, and it has the scopes of what we call."""
    yield await _reachable(client)
    calls = _calls(client)
    valid = await _valid(calls["generations:read"])
    yield valid
    for scope, call in calls.items():
        yield await _scope(scope, call) if valid.ok else Line(f"scope {scope}", False, "unknown until the key is valid")


def _calls(client: RivyaClient) -> dict[str, _Call]:
    """A call for each scope, none of which changes anything."""
    # A fresh key each time: what an earlier check was answered must not be answered again.
    idempotency_key = f"check-{uuid7(SystemClock().now())}"
    return {
        "generations:read": lambda: client.get_generation(_NO_GENERATION),
        "generations:create": lambda: client.create_generation(_NO_CREATE, idempotency_key=idempotency_key),
        "webhooks:manage": client.list_endpoints,
    }


async def _reachable(client: RivyaClient) -> Line:
    name = "Rivya reachable"
    try:
        models = await client.models()
    except RivyaRefused as error:
        return Line(name, True, f"answers, though not with its models ({error.code})")
    except RivyaError as error:
        return Line(name, False, f"{error}; see RIVYA_BASE_URL")
    return Line(name, True, f"lists {len(models)} models")


async def _valid(call: _Call) -> Line:
    name = "API key valid"
    try:
        await call()
    except RivyaUnauthorized as error:
        return Line(name, False, f"{error.code}; see RIVYA_API_KEY")
    except RivyaRateLimited as error:
        return Line(name, False, f"unknown: {error}")
    except RivyaRefused:
        return Line(name, True, "accepted")  # refused for another reason, which only a valid key gets to hear
    except RivyaError as error:
        return Line(name, False, f"unknown: {error}")
    return Line(name, True, "accepted")


async def _scope(scope: str, call: _Call) -> Line:
    name = f"scope {scope}"
    try:
        await call()
    except RivyaForbidden as error:
        return Line(name, False, f"{error.code}; give the key this scope at Rivya")
    except (RivyaUnauthorized, RivyaRateLimited) as error:
        return Line(name, False, f"unknown: {error}")
    except RivyaRefused:
        return Line(name, True, "granted")  # it was looked at, and found not to name anything
    except RivyaError as error:
        return Line(name, False, f"unknown: {error}")
    return Line(name, True, "granted")
