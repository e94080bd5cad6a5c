"""Every page, by a browser: no barrier for anybody, at any width, and nothing from outside runs or is loaded."""

from urllib.parse import quote

import pytest

from app.core.auth import Role
from tests.browser.conftest import Open
from tests.support.browser import CONTRAST, Watch, accessibility_violations, cut_tables, sideways_scroll
from tests.support.made_up_record import EXPIRED_ID, FAILED_ID, HOSTILE, HOSTILE_ID, OPEN_ID, VIDEO_ID

HOSTILE_PATH = f"/console/generations/{quote(HOSTILE_ID, safe='')}"
PAGES = (
    "/console?range=day",
    "/console/new",
    "/console/generations?limit=8",
    "/console/generations?limit=8&view=gallery",
    "/console/generations?model=nobody-has-it",
    f"/console/generations/{OPEN_ID}",
    f"/console/generations/{FAILED_ID}",
    f"/console/generations/{VIDEO_ID}",
    HOSTILE_PATH,
    "/console/generations/task_hostile000000000000001",
    "/console/deliveries?limit=8",
    "/console/deliveries/evt_unreadable",
    "/console/deliveries/evt_unknown_type",
    "/console/deliveries/replay?outcome=conflict",
    "/console/refusals",
    "/console/endpoint",
    "/console/usage",
    "/console/tokens",
    "/console/webhooks",
    "/console/notifications",
    "/console/audit?limit=8",
)


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_has_no_barrier_in_light_and_dark_and_needs_no_sideways_scrolling(
    open_page: Open, path: str
) -> None:
    page = await open_page(path)
    assert await accessibility_violations(page) == []
    await page.emulate_media(color_scheme="dark")
    assert await accessibility_violations(page, CONTRAST) == []
    for width in (1600, 768, 360):
        await page.set_viewport_size({"width": width, "height": 800})
        assert await sideways_scroll(page) == 0, width
    assert await page.evaluate("window.hostile") is None


@pytest.mark.parametrize(("width", "rows"), [(1600, 1), (1280, 1), (1024, 2), (768, 2), (360, 3)])
async def test_the_six_counts_of_the_overview_fill_their_rows(open_page: Open, width: int, rows: int) -> None:
    page = await open_page("/console")
    await page.set_viewport_size({"width": width, "height": 800})
    tops = await page.locator(".tile").evaluate_all("all => all.map(it => it.getBoundingClientRect().top)")
    assert (len(tops), len(set(tops))) == (6, rows)


async def test_the_audit_shows_all_its_columns_and_each_named_action_in_one_line(open_page: Open) -> None:
    page = await open_page("/console/audit?limit=8")
    assert await cut_tables(page) == 0
    actions = page.locator("td[data-label=Action] span").filter(has_not_text="/")  # a route may need two
    assert set(await actions.evaluate_all("all => all.map(it => it.getClientRects().length)")) == {1}


@pytest.mark.parametrize(
    "path", ["/console/generations/not-there", "/console/nothing", "/console/deliveries/not-there"]
)
async def test_what_is_not_there_is_said_on_a_page_without_barriers(
    open_page: Open, watches: list[Watch], path: str
) -> None:
    page = await open_page("/console/endpoint")
    watches[0].allowed.append("status of 404")
    answer = await page.goto(path)
    assert answer is not None
    assert answer.status == 404
    assert await page.get_by_role("alert").count() == 1
    assert await accessibility_violations(page) == []


async def test_text_from_outside_is_shown_as_it_is(open_page: Open) -> None:
    page = await open_page(HOSTILE_PATH)
    for name in ("Facts", "What was asked for"):
        assert HOSTILE[:20] in await page.get_by_role("region", name=name).inner_text()
    assert await page.locator("img[src=hostile]").count() == 0
    await page.get_by_text("Raw JSON").click()
    assert "window.hostile" in await page.get_by_label("Raw JSON").inner_text()


async def test_only_web_urls_are_linked_and_the_other_host_is_not_told_where_from(open_page: Open) -> None:
    page = await open_page("/console/generations/task_hostile000000000000001")
    assert (
        await page.locator("a[href^='javascript'], a[href^='data'], [src^='javascript'], [src^='data:text']").count()
        == 0
    )
    page = await open_page(f"/console/generations/{EXPIRED_ID}")
    link = page.locator("figure.result a")
    assert "noreferrer" in str(await link.get_attribute("rel"))
    assert str(await link.get_attribute("href")).startswith("https://media.example/")


async def test_a_result_whose_url_has_expired_gives_way_to_words(open_page: Open) -> None:
    page = await open_page(f"/console/generations/{EXPIRED_ID}")
    await page.get_by_text("Can't be loaded; the URL may have expired").wait_for()
    assert not await page.get_by_alt_text("Result").is_visible()


async def test_a_page_is_small(open_page: Open) -> None:
    page = await open_page("/console/generations")
    sizes = await page.evaluate(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".filter(entry => entry.name.startsWith(location.origin)).map(entry => entry.transferSize)"
    )
    assert sum(sizes) < 200_000


async def test_a_page_can_be_read_without_scripts(open_page: Open) -> None:
    page = await open_page("/console/generations?status=failed", Role.READ, java_script_enabled=False)
    assert await page.get_by_role("row").count() > 1
