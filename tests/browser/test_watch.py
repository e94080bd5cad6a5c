"""What the other tests here rely on: the browser shows our pages, and the watch notices what no page may do."""

import pytest

from tests.browser.conftest import Open
from tests.support.browser import Watch


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
    await page.wait_for_function("new Promise(resolve => setTimeout(() => resolve(true), 50))")
    assert [each for each in watches[0].unexpected() if each.startswith(problem)]
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
