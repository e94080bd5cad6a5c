"""Tests everything that a deployment needs, a line each, without changing or paying for anything."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from app.cli import check_database, check_endpoint, check_public, check_rivya
from app.cli.check_line import Line
from app.core.database import Database
from app.core.settings import Settings
from app.rivya.client import RivyaClient
from app.rivya.schemes import Scheme, SchemeInvalid, wanted_scheme

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
        reached = await check_database.reached(database)
        yield reached
        migrated = await check_database.migrated(database, reached)
        yield migrated
        async with RivyaClient(settings.rivya_base_url, settings.rivya_api_key.get_secret_value()) as client:
            async for line in check_rivya.key(client):
                yield line
            yield await check_endpoint.registered(client, database, settings, migrated=migrated)
        async for line in check_database.stored(database, settings, scheme=scheme, migrated=migrated):
            yield line
        if is_public:
            async for line in check_public.reached(database, settings, migrated=migrated):
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
