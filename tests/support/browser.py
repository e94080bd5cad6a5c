"""Debian's Chromium, driven by Playwright, and a watch that nothing a page does goes by unnoticed."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    Route,
    async_playwright,
    expect,
)

from tests.support.made_up_media import made_up_media

_ARGUMENTS = (
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # whatever it does by itself stays on this machine
)
_MEDIA = {"image", "media"}
_VISIBLE_SECONDS = 15.0
expect.set_options(timeout=_VISIBLE_SECONDS * 1000)
Scheme = Literal["light", "dark"]


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """A headless Chromium; ended at the end of the block. The one without a window system takes half of the time."""
    program = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    assert program is not None, "Chromium is missing: make postgres"
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=program, args=_ARGUMENTS) as browser,
    ):
        yield browser


@dataclass
class Watch:
    """What the pages of one context did that they must not do."""

    origin: str
    problems: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    """Regular expressions for problems that the test provokes."""

    def unexpected(self) -> list[str]:
        """The problems that the test did not provoke."""
        return [each for each in self.problems if not any(re.search(pattern, each) for pattern in self.allowed)]

    async def begin(self, context: BrowserContext) -> None:
        context.on("page", self._observe)
        await context.route(lambda url: not self._is_ours(url), self._answer)

    def _observe(self, page: Page) -> None:
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.problems.append(f"script error: {error}"))
        page.on("crash", lambda _: self.problems.append("the page crashed"))

    def _note_console(self, message: ConsoleMessage) -> None:
        is_ours = self._is_ours(message.location["url"])
        if message.type == "error" and (is_ours or "Failed to load resource" not in message.text):
            self.problems.append(f"console: {message.text} ({message.location['url']})")

    def _is_ours(self, url: str) -> bool:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc}" == self.origin or parts.scheme in {"data", "blob", "about", ""}

    async def _answer(self, route: Route, request: Request) -> None:
        """Media comes out of this process; whatever else asks for another origin is a problem."""
        if request.resource_type not in _MEDIA:
            self.problems.append(f"request: {request.method} {request.url} ({request.resource_type})")
            await route.abort()
            return
        await route.fulfill(**made_up_media(request.url))


@asynccontextmanager
async def open_context(
    browser: Browser, origin: str, *, width: int = 1280, scheme: Scheme = "light", **options: Any
) -> AsyncIterator[tuple[BrowserContext, Watch]]:
    """A context with nothing stored in it, watched from its first page on."""
    context = await browser.new_context(
        base_url=origin,
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        reduced_motion="reduce",
        **options,
    )
    context.set_default_timeout(_VISIBLE_SECONDS * 1000)
    watch = Watch(origin)
    await watch.begin(context)
    try:
        yield context, watch
    finally:
        await context.close()


async def sign_in(browser: Browser, origin: str, token: str) -> Any:
    """The cookies of somebody who has signed in with this token: an option of further contexts, `storage_state`."""
    async with open_context(browser, origin) as (context, watch):
        page = await context.new_page()
        await page.goto("/console/login")
        await page.get_by_label("Token").fill(token)
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url("**/console")
        assert watch.unexpected() == []
        return await context.storage_state()


_AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
_RUN_AXE = """async (rules) => {
    const options = {resultTypes: ['violations'], ...(rules.length ? {runOnly: rules} : {})};
    return (await axe.run(document, options)).violations;
}"""
CONTRAST = "color-contrast"
"""The rule of axe-core that depends on the colours."""


async def accessibility_violations(page: Page, *rules: str) -> list[str]:
    """What axe-core objects to on this page, by all its rules or by these, one line for each element."""
    await page.wait_for_load_state()  # before that its style sheet may be missing
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(_AXE)
    violations = await page.evaluate(_RUN_AXE, list(rules))
    return [
        f"{each['id']} ({each['impact']}): {each['help']}: {node['html'][:200]}"
        for each in violations
        for node in each["nodes"]
    ]


async def reload_until(page: Page, wanted: Locator) -> None:
    """Reload until it is there: for what is written soon after, and of which the page is not told at once."""
    async with asyncio.timeout(_VISIBLE_SECONDS):
        while not await wanted.count():
            await page.reload()


async def cut_tables(page: Page) -> int:
    """How many tables of the page can be scrolled sideways, and so show not all of their columns."""
    await page.wait_for_load_state()
    count: int = await page.evaluate(
        "[...document.querySelectorAll('.table')].filter(it => it.scrollWidth > it.clientWidth).length"
    )
    return count


async def sideways_scroll(page: Page) -> int:
    """How many pixels the page can be scrolled sideways."""
    await page.wait_for_load_state()
    pixels: int = await page.evaluate("scrollTo(10000, 0), scrollX")
    return pixels
