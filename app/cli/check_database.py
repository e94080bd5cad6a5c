"""What `rivya-receiver check` finds in the database: it answers, it is migrated, and how things stand in it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from app.cli.check_line import Line
from app.core import migrations
from app.core.clock import SystemClock
from app.core.database import Database
from app.core.encryption import SealBroken, SealingKeys
from app.core.errors import DatabaseUnavailable, Finding
from app.core.settings import Settings
from app.endpoint.health import EndpointHealth
from app.endpoint.keyring import Keyring
from app.ratelimit.limiter import RateLimiter
from app.rivya.schemes import Scheme

UNTELLING = (DatabaseUnavailable, SQLAlchemyError)
"""The database is away, or refuses to show what is asked for."""

UNTIL_MIGRATED = "unknown until the database is migrated"

_NAMES = {"signature_scheme": "scheme in use"}  # beside the setting, which has a line of its own
_MIGRATES = "`rivya-receiver serve` sees to it unless RECEIVER_MIGRATE_ON_START=false; so does `alembic upgrade head`"


async def reached(database: Database) -> Line:
    """It answers. One that doesn't exist yet is not made by looking."""
    name, shown = "database", database.url.render_as_string(hide_password=True)
    if _is_to_be_made(database):
        return Line(name, False, f"{shown} does not exist yet; `rivya-receiver serve` makes it")
    try:
        await database.ping()
    except UNTELLING as error:
        return Line(name, False, f"{shown} can't be reached ({_cause(error)}); see DATABASE_URL")
    return Line(name, True, f"{shown} answers")


async def migrated(database: Database, reached: Line) -> Line:
    """It is at the revision that this code is written for."""
    name, wanted = "migrations", migrations.head()
    if not reached.ok:
        return Line(name, False, f"unknown while the database can't be reached; {wanted} is needed")
    try:
        found = await migrations.current(database)
    except UNTELLING as error:
        return Line(name, False, f"{untold(error)}; {wanted} is needed")
    if found is not None and found not in migrations.known():
        return Line(name, True, f"at {found}, which a later release made; this one serves on it")
    if found != wanted:
        return Line(name, False, f"at {found or 'none'}, {wanted} is needed; {_MIGRATES}")
    return Line(name, True, f"at {found}")


async def stored(
    database: Database, settings: Settings, *, scheme: Scheme | None, migrated: Line
) -> AsyncIterator[Line]:
    """How things stand: the signing secret opens, deliveries are verified, polling goes on."""
    keyring = _keyring(database, settings, scheme)
    if migrated.ok or keyring.is_fixed:
        async for line in _told("signing secret", lambda: _deliveries(database, keyring)):
            yield line
    else:
        yield Line("signing secret", False, UNTIL_MIGRATED)
        yield Line("scheme in use", False, UNTIL_MIGRATED)
    if migrated.ok:
        async for line in _told("polling", lambda: _polling(database, settings)):
            yield line
    else:
        yield Line("polling", False, UNTIL_MIGRATED)


async def _told(name: str, ask: Callable[[], Awaitable[Sequence[Finding]]]) -> AsyncIterator[Line]:
    """What was found, else why nothing could be."""
    try:
        for finding in await ask():
            yield Line(_NAMES.get(finding.name, finding.name.replace("_", " ")), finding.ok, finding.detail)
    except SealBroken as error:
        yield Line(name, False, f"RECEIVER_ENCRYPTION_KEYS: {error}")
    except UNTELLING as error:
        yield Line(name, False, untold(error))


async def _deliveries(database: Database, keyring: Keyring) -> list[Finding]:
    await keyring.load()
    found = await EndpointHealth(database, keyring, clock=SystemClock()).findings()
    return [finding for finding in found if finding.name != "endpoint"]  # Rivya itself is asked about that


async def _polling(database: Database, settings: Settings) -> list[Finding]:
    key, rate = settings.rivya_api_key.get_secret_value(), settings.receiver_poll_rate
    return [await RateLimiter(database, SystemClock(), rate=rate, api_key=key).health()]


def _keyring(database: Database, settings: Settings, scheme: Scheme | None) -> Keyring:
    keys = SealingKeys([key.get_secret_value() for key in settings.receiver_encryption_keys])
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
