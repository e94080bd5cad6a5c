"""One Chromium and one service with a sandbox behind it, for all tests in this folder that a process runs."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, BrowserContext, Page

from app.sandbox.server import ServedSandbox, serve_sandbox
from tests.support.browser import Watch, open_browser, open_context
from tests.support.databases import SqliteDatabases
from tests.support.receivers import Receiver, receiver


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
    """A service in a process of its own."""
    async with receiver(rivya, shared_database_url, tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture
async def watched(browser: Browser, service: Receiver) -> AsyncIterator[tuple[BrowserContext, Watch]]:
    """A context of this test's own. The test fails if a page of it did what no page of ours may do."""
    async with open_context(browser, service.process.url) as (context, watch):
        yield context, watch
    assert watch.unexpected() == []


@pytest.fixture
def watch(watched: tuple[BrowserContext, Watch]) -> Watch:
    """What the pages of this test did."""
    return watched[1]


@pytest.fixture
async def page(watched: tuple[BrowserContext, Watch]) -> Page:
    """A page that is watched."""
    return await watched[0].new_page()
