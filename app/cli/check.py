"""Tests everything that a deployment needs, a line each, without changing or paying for anything."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from app.core import migrations
from app.core.database import Database
from app.core.errors import DatabaseUnavailable
from app.core.settings import Settings
from app.endpoint.tables import State, endpoints
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError, RivyaForbidden, RivyaNotFound, RivyaRefused, RivyaUnauthorized
from app.rivya.signature import SchemeInvalid, parse_scheme

Say = Callable[[str], Any]

# An id that no generation has, and a body that no model takes: refused, but only after the scope was looked at.
_NO_GENERATION = "task_that_does_not_exist"
_NO_CREATE = b"{}"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing tested."""

    name: str
    ok: bool
    detail: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name}: {self.detail}"


async def check_deployment(settings: Settings, say: Say) -> bool:
    """Say a line for each thing tested; True if all are well."""
    all_ok = True
    async for line in _lines(settings):
        say(str(line))
        all_ok = all_ok and line.ok
    return all_ok


async def _lines(settings: Settings) -> AsyncIterator[Line]:
    yield Line("settings", True, "complete")
    yield _scheme(settings)
    yield _public_url(settings)
    database = Database(settings.database_url)
    async with RivyaClient(settings.rivya_base_url, settings.rivya_api_key.get_secret_value()) as client:
        try:
            yield await _database(database)
            yield await _migrations(database)
            async for line in _rivya(client):
                yield line
            yield await _endpoint(settings, database, client)
        finally:
            await database.dispose()


def _scheme(settings: Settings) -> Line:
    try:
        scheme = parse_scheme(settings.rivya_signature_scheme)
    except SchemeInvalid as error:
        return Line("signature scheme", False, f"RIVYA_SIGNATURE_SCHEME: {error}")
    return Line("signature scheme", True, str(scheme))


def _public_url(settings: Settings) -> Line:
    if settings.receiver_public_url is None:
        return Line("public URL", True, "not needed: RIVYA_SIGNING_SECRET is set, nothing is registered")
    return Line("public URL", True, f"{settings.receiver_public_url} has the form that Rivya asks for")


async def _database(database: Database) -> Line:
    shown = database.url.render_as_string(hide_password=True)
    try:
        await database.ping()
    except DatabaseUnavailable as error:
        return Line("database", False, f"{shown} can't be reached ({type(error.__cause__).__name__}); see DATABASE_URL")
    return Line("database", True, f"{shown} answers")


async def _migrations(database: Database) -> Line:
    wanted = migrations.head()
    try:
        found = await migrations.current(database)
    except DatabaseUnavailable:
        return Line("migrations", False, "unknown while the database is away")
    if found == wanted:
        return Line("migrations", True, f"at {found}")
    hint = "`rivya-receiver serve` brings it there unless RECEIVER_MIGRATE_ON_START=false; or `alembic upgrade head`"
    return Line("migrations", False, f"at {found or 'none'}, {wanted} is needed; {hint}")


async def _rivya(client: RivyaClient) -> AsyncIterator[Line]:
    try:
        models = await client.models()
    except RivyaError as error:
        yield Line("Rivya reachable", False, f"{error}; see RIVYA_BASE_URL")
        return
    yield Line("Rivya reachable", True, f"lists {len(models)} models")
    try:
        await client.get_generation(_NO_GENERATION)
    except RivyaUnauthorized as error:
        yield Line("API key valid", False, f"{error.code}; see RIVYA_API_KEY")
        return
    except RivyaError:
        pass
    yield Line("API key valid", True, "accepted")
    yield await _scope("generations:read", lambda: client.get_generation(_NO_GENERATION))
    yield await _scope("generations:create", lambda: client.create_generation(_NO_CREATE, idempotency_key="check"))
    yield await _scope("webhooks:manage", client.list_endpoints)


async def _scope(scope: str, call: Callable[[], Any]) -> Line:
    name = f"scope {scope}"
    try:
        await call()
    except RivyaForbidden as error:
        return Line(name, False, f"{error.code}; give the key this scope at Rivya")
    except RivyaNotFound:
        return Line(name, True, "granted")
    except RivyaRefused as error:
        is_granted = error.status == 400
        return Line(name, is_granted, "granted" if is_granted else f"unknown: {error}")
    except RivyaError as error:
        return Line(name, False, f"unknown: {error}")
    return Line(name, True, "granted")


async def _endpoint(settings: Settings, database: Database, client: RivyaClient) -> Line:
    name = "endpoint registered"
    if not settings.registers_endpoint:
        return Line(name, True, "made by hand: RIVYA_SIGNING_SECRET is set")
    try:
        async with database.read() as connection:
            found = select(endpoints.c.rivya_id).where(endpoints.c.state == State.SERVING)
            rivya_id = (await connection.execute(found)).scalars().first()
    except Exception as error:  # noqa: BLE001 - whatever the reason, the answer is the same
        return Line(name, False, f"unknown: the database does not tell ({type(error).__name__})")
    if rivya_id is None:
        return Line(name, False, "not yet; `rivya-receiver serve` registers it")
    try:
        endpoint = await client.get_endpoint(rivya_id)
    except RivyaError as error:
        return Line(name, False, f"{rivya_id}: {error}")
    return Line(name, endpoint.status in (None, "active"), f"{rivya_id} is {endpoint.status or 'known'} at Rivya")
