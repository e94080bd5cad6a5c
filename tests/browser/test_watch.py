"""What the other tests here rely on: the browser shows our pages, and the watch notices what no page may do."""

import asyncio

import pytest

from tests.browser.conftest import Open
from tests.support.browser import Watch
from tests.support.clock import BUSY


async def test_the_browser_shows_what_the_service_answers(open_page: Open) -> None:
    page = await open_page("/livez", None)
    assert "status" in await page.inner_text("body")


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("fetch('https://elsewhere.example/data').catch(() => 0)", "request: GET https://elsewhere.example/data"),
        ("console.error('gone wrong')", "console: gone wrong"),
        ("setTimeout(() => { throw new Error('thrown') })", "script error: thrown"),
        ("fetch('/not-there')", "console: Failed to load resource"),
    ],
)
async def test_the_watch_notices_what_no_page_may_do(
    open_page: Open, watches: list[Watch], script: str, problem: str
) -> None:
    page = await open_page("/livez", None)
    await page.evaluate(f"{{ {script} }}")
    async with asyncio.timeout(BUSY):
        while not any(each.startswith(problem) for each in watches[0].unexpected()):
            await page.evaluate("document.title")  # what the browser reports before its answer is noted before it
    watches[0].allowed.append(".")


async def test_the_watch_lets_media_through_and_nobody_is_asked_for_it(open_page: Open) -> None:
    page = await open_page("/livez", None)
    width = await page.evaluate(
        """async () => {
            const image = new Image();
            image.src = 'https://media.example/a.png';
            await image.decode();
            return image.naturalWidth;
        }"""
    )
    assert width == 512
