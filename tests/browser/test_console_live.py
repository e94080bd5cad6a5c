"""Signing in by a link, pages that update themselves, a connection that is lost, a page in the background, /docs."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from app.sandbox.server import ServedSandbox, serve_sandbox
from tests.support.browser import Watch, open_context
from tests.support.ports import free_port
from tests.support.receivers import TOKEN, Receiver, receiver

MOVE = """isHidden => {
    Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
READ_ANEW = """before => performance.getEntriesByType('resource')
    .filter(entry => entry.name.endsWith('/console')).length > before"""


@pytest.fixture
async def rivya() -> AsyncIterator[ServedSandbox]:
    """One of its own: each receiver here leaves its endpoint there."""
    async with serve_sandbox() as served:
        yield served


@asynccontextmanager
async def signed_in(browser: Browser, running: Receiver) -> AsyncIterator[tuple[Page, Watch]]:
    """The overview, reached by the link that `make run` prints, with the keyboard only."""
    async with open_context(browser, running.process.url) as (context, watch):
        page = await context.new_page()
        await page.goto(f"/console#token={TOKEN}")
        assert page.url == f"{running.process.url}/console/login"  # the token is not left in the address
        await expect(page.get_by_label("Token")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.get_by_role("heading", name="Overview").wait_for()
        await page.get_by_text("Live", exact=True).wait_for()
        yield page, watch
        assert watch.unexpected() == []


async def test_a_link_with_a_token_fills_the_form_and_the_overview_follows_what_happens(
    browser: Browser, rivya: ServedSandbox, sqlite_url: str, tmp_path: Path
) -> None:
    async with receiver(rivya, sqlite_url, tmp_path) as running, signed_in(browser, running) as (page, _):
        open_now = page.locator(".tile", has_text="Open").locator(".value")
        assert await open_now.inner_text() == "0"
        await page.evaluate("window.isSamePage = true")
        await running.create(seconds=600)
        await page.locator(".tile", has_text="Open").get_by_text("1", exact=True).wait_for()
        assert await page.evaluate("window.isSamePage")


async def test_a_lost_connection_is_shown_and_comes_back_with_what_was_missed(
    browser: Browser, rivya: ServedSandbox, sqlite_url: str, tmp_path: Path
) -> None:
    port = free_port()
    async with receiver(rivya, sqlite_url, tmp_path, port=port) as first, signed_in(browser, first) as (page, watch):
        watch.allowed.append("ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|Failed to fetch")
        await asyncio.to_thread(first.process.terminate)
        await page.get_by_text("Connection lost").wait_for()
        async with receiver(rivya, sqlite_url, tmp_path, port=port) as second:
            await second.create(seconds=600)
            await page.locator(".tile", has_text="Open").get_by_text("1", exact=True).wait_for(timeout=60_000)
            await page.get_by_text("Live", exact=True).wait_for()


async def test_a_page_in_the_background_asks_for_nothing_until_it_is_in_front_again(
    browser: Browser, rivya: ServedSandbox, sqlite_url: str, tmp_path: Path
) -> None:
    async with receiver(rivya, sqlite_url, tmp_path) as running, signed_in(browser, running) as (page, _):
        requests: list[str] = []
        await page.wait_for_function(READ_ANEW, arg=0)  # as it does once it is connected
        await page.evaluate(MOVE, True)
        page.on("request", lambda request: requests.append(request.url))
        await running.settled(await running.create(seconds=0.1))
        assert requests == []
        async with page.expect_request(f"{running.process.url}/console/events"):
            await page.evaluate(MOVE, False)
        await page.wait_for_function(READ_ANEW, arg=1)


async def test_a_silent_connection_is_shown_as_lost_and_made_anew(
    browser: Browser, rivya: ServedSandbox, sqlite_url: str, tmp_path: Path
) -> None:
    async with receiver(rivya, sqlite_url, tmp_path) as running, signed_in(browser, running) as (page, _):
        await page.clock.install()
        await page.reload()
        await page.get_by_text("Live", exact=True).wait_for()
        os.kill(running.process.pid, signal.SIGSTOP)
        try:
            await page.clock.fast_forward(60_000)
            await page.get_by_text("Connection lost").wait_for()
        finally:
            os.kill(running.process.pid, signal.SIGCONT)
        await page.get_by_text("Live", exact=True).wait_for()


async def test_the_documentation_needs_no_other_host(
    browser: Browser, rivya: ServedSandbox, sqlite_url: str, tmp_path: Path
) -> None:
    async with (
        receiver(rivya, sqlite_url, tmp_path) as running,
        open_context(browser, running.process.url) as (context, watch),
    ):
        page = await context.new_page()
        await page.goto("/docs")
        await page.get_by_role("button", name="GET /api/v1/generations", exact=False).first.wait_for(timeout=60_000)
        assert watch.unexpected() == []
