"""What the other tests here rely on: the browser shows our pages, and the watch notices what no page may do."""

import pytest
from playwright.async_api import Page

from tests.support.browser import Watch


async def test_the_browser_shows_what_the_service_answers(page: Page) -> None:
    answer = await page.goto("/livez")
    assert answer is not None
    assert answer.status == 200


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("fetch('https://elsewhere.example/data').catch(() => 0)", "request: GET https://elsewhere.example/data"),
        ("console.error('gone wrong')", "console: gone wrong"),
        ("setTimeout(() => { throw new Error('thrown') })", "script error: thrown"),
        ("fetch('/not-there')", "console: Failed to load resource"),
    ],
)
async def test_the_watch_notices_what_no_page_may_do(page: Page, watch: Watch, script: str, problem: str) -> None:
    await page.goto("/livez")
    await page.evaluate(f"{{ {script} }}")
    await page.wait_for_function("new Promise(resolve => setTimeout(() => resolve(true), 50))")
    assert [each for each in watch.unexpected() if each.startswith(problem)]
    watch.allowed.append(".")


async def test_the_watch_lets_media_through_and_nobody_is_asked_for_it(page: Page) -> None:
    await page.goto("/livez")
    width = await page.evaluate(
        """async () => {
            const image = new Image();
            image.src = 'https://media.example/a.png';
            await image.decode();
            return image.naturalWidth;
        }"""
    )
    assert width == 512
