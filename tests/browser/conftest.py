"""One Chromium and one service with a sandbox behind it, for all tests in this folder that a process runs."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from app.core.auth import Role
from app.sandbox.server import ServedSandbox, serve_sandbox
from tests.support.browser import Watch, open_browser, open_context, sign_in
from tests.support.databases import SqliteDatabases
from tests.support.made_up_record import MadeUpRecord, make_up_record
from tests.support.receivers import TOKEN, Receiver, receiver

TOKENS = {role: TOKEN if role is Role.ADMIN else f"a-token-of-role-{role}-in-browsers" for role in Role}
Open = Callable[..., Awaitable[Page]]
OPEN_SECONDS = 3600.0
"""Of a generation that is settled by a test or not at all: however slow the test is, it is neither done nor begun."""


async def open_generation(open_page: Open, service: Receiver) -> tuple[Page, str]:
    """The page of a generation whose outcome is not known yet, and its id."""
    generation_id = await service.create(seconds=OPEN_SECONDS)
    return await open_page(f"/console/generations/{generation_id}"), generation_id


@pytest.fixture(scope="package")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium."""
    async with open_browser() as running:
        yield running


@pytest.fixture(scope="package")
async def rivya() -> AsyncIterator[ServedSandbox]:
    """The sandbox behind the service."""
    async with serve_sandbox() as served:
        yield served


@pytest.fixture(scope="package")
def shared_database_url(sqlite_databases: SqliteDatabases) -> str:
    """The database of the service."""
    return sqlite_databases.migrated()


@pytest.fixture(scope="package")
async def service(
    rivya: ServedSandbox, shared_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Receiver]:
    """A service in a process of its own, with a made-up record. The names of its tokens are their roles."""
    tokens = ",".join(f"{role}:{role}:{token}" for role, token in TOKENS.items())
    await make_up_record(shared_database_url, MadeUpRecord(datetime.now(UTC)))
    directory = tmp_path_factory.mktemp("browser")
    async with receiver(
        rivya, shared_database_url, directory, RECEIVER_API_TOKENS=tokens, RECEIVER_NOTIFY_ALLOW="127.0.0.1"
    ) as running:
        yield running


@pytest.fixture(scope="package")
def cookies() -> dict[Role, Any]:
    """The sessions that were begun, by role."""
    return {}


@pytest.fixture
def watches() -> list[Watch]:
    """What the pages of this test did."""
    return []


@pytest.fixture
async def open_page(
    browser: Browser, service: Receiver, cookies: dict[Role, Any], watches: list[Watch]
) -> AsyncIterator[Open]:
    """Opens a page as somebody who is signed in, or as nobody. The test fails if it did what no page may do."""
    async with AsyncExitStack() as stack:

        async def opened(path: str, role: Role | None = Role.ADMIN, **options: Any) -> Page:
            if role is not None and role not in cookies:
                cookies[role] = await sign_in(browser, service.process.url, TOKENS[role])
            options["storage_state"] = None if role is None else cookies[role]
            opening = open_context(browser, service.process.url, **options)
            context, watch = await stack.enter_async_context(opening)
            watches.append(watch)
            page = await context.new_page()
            await page.goto(path)
            return page

        yield opened
    assert [each for watch in watches for each in watch.unexpected()] == []
