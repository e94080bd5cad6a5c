"""A page that updates itself under somebody's hands: no click, focus or scroll position is lost, no form sent twice."""

import asyncio
from datetime import UTC, datetime, timedelta

from playwright.async_api import Locator, Page, Route, expect

from app.sandbox.server import ServedSandbox
from tests.browser.conftest import OPEN_SECONDS, Open, open_generation
from tests.support.made_up_record import EXPIRED_ID, FAILED_ID
from tests.support.receivers import Receiver

# Playwright asks a page nothing while another is on its way to it.
_REPORT_ONCE_SETTLED = """
new MutationObserver((_, observer) => {
    if (!document.querySelector(".subtitle").textContent.includes("succeeded")) return;
    observer.disconnect();
    console.log(`disabled: ${document.querySelector("form[action$='/poll'] button").disabled}`);
}).observe(document, { childList: true, subtree: true });
"""


async def open_live(open_page: Open, service: Receiver) -> tuple[Page, str]:
    """The page of an open generation, connected, and its id."""
    page, generation_id = await open_generation(open_page, service)
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    return page, generation_id


async def press(page: Page, button: Locator) -> None:
    """Without letting go."""
    await button.hover()
    await page.mouse.down()


async def settle(page: Page, rivya: ServedSandbox, generation_id: str) -> None:
    """Returns once the page shows it: its actions would have been replaced too."""
    await rivya.sandbox.settle(generation_id)
    await expect(page.locator(".subtitle").get_by_text("succeeded")).to_be_visible()


async def test_what_is_pressed_meanwhile_stays_until_it_is_clicked(
    open_page: Open, rivya: ServedSandbox, service: Receiver
) -> None:
    page, generation_id = await open_live(open_page, service)
    unknown = page.get_by_text("Its outcome is not known yet", exact=False)
    await press(page, page.get_by_role("button", name="Replay"))
    await settle(page, rivya, generation_id)
    await expect(unknown).to_have_count(1)
    await page.mouse.up()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(unknown).to_have_count(0)  # made up for


async def test_a_form_under_way_is_sent_once_though_its_region_has_changed(
    open_page: Open, rivya: ServedSandbox, service: Receiver
) -> None:
    page, generation_id = await open_live(open_page, service)
    let_go = asyncio.Event()
    sent: list[str] = []

    async def hold(route: Route) -> None:
        sent.append(route.request.url)
        await let_go.wait()
        await route.continue_()

    await page.route("**/poll", hold)
    await page.evaluate(_REPORT_ONCE_SETTLED)
    async with page.expect_console_message() as message:
        await page.get_by_role("button", name="Poll now").click(no_wait_after=True)
        await rivya.sandbox.settle(generation_id)
    assert (await message.value).text == "disabled: true"
    let_go.set()
    await expect(page.get_by_role("status").filter(has_text="Rivya was asked")).to_be_visible()
    assert len(sent) == 1


async def test_a_form_that_was_stopped_can_be_sent_again(open_page: Open) -> None:
    page = await open_page(f"/console/generations/{FAILED_ID}")
    await page.clock.install()
    await page.reload()
    await page.route("**/poll", lambda route: route.abort("aborted"))  # as the button Stop does
    button = page.get_by_role("button", name="Poll now")
    async with page.expect_event("requestfailed", lambda request: request.method == "POST"):
        await button.click(no_wait_after=True)
    await page.clock.run_for(100)
    await expect(button).to_be_disabled()
    await page.clock.run_for(40_000)
    await expect(button).to_be_enabled()


async def test_the_focus_stays_with_its_row_and_the_page_where_it_was_scrolled_to(
    open_page: Open, service: Receiver
) -> None:
    generation_id = await service.create(seconds=OPEN_SECONDS)
    page = await open_page("/console/generations")
    await page.set_viewport_size({"width": 650, "height": 500})
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    link, table = page.get_by_role("link", name=generation_id[:20]), page.locator("#generations .table")
    await link.focus()
    await table.evaluate("it => it.scrollTo(40, 0)")
    await page.evaluate("scrollTo(0, 0)")
    at = await table.evaluate("it => it.scrollLeft")
    assert at > 0
    newer = await service.create(seconds=OPEN_SECONDS)
    await expect(page.get_by_role("link", name=newer[:20])).to_be_visible()
    await expect(link).to_be_focused()
    assert await table.evaluate("it => it.scrollLeft") == at
    assert await page.evaluate("scrollY") == 0


async def test_copying_twice_leaves_the_button_its_name(open_page: Open) -> None:
    page = await open_page(f"/console/generations/{FAILED_ID}")
    await page.clock.install()
    await page.reload()
    await page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))
    button = page.locator(".subtitle .copy")
    for _ in range(2):
        await button.click()
        await page.evaluate("navigator.clipboard.writeText('').catch(() => 0)")  # after that of the button
        await expect(button).to_have_attribute("aria-label", "Copied")
    await page.clock.run_for(10_000)
    await expect(button).to_have_attribute("aria-label", f"Copy {FAILED_ID}")


async def test_filters_that_were_not_sent_can_still_be_set(open_page: Open) -> None:
    page = await open_page("/console/generations")
    search = page.get_by_label("Search")
    await page.route("**/console/generations?*", lambda route: route.abort("aborted"))  # as the button Stop does
    await search.fill("task_newe")
    async with page.expect_event("requestfailed"):
        await search.press("Enter")
    await expect(page.get_by_label("Model")).to_be_enabled()


async def test_a_page_that_is_as_it_was_is_not_replaced_though_a_picture_failed_before_the_script_came(
    open_page: Open,
) -> None:
    page = await open_page("/livez")
    let_go = asyncio.Event()

    async def hold(route: Route) -> None:
        await let_go.wait()
        await route.continue_()

    await page.route("**/console.js", hold)
    await page.goto(f"/console/generations/{EXPIRED_ID}", wait_until="commit")
    await page.wait_for_function("() => document.querySelector('figure img')?.complete")
    await page.evaluate("document.querySelector('figure').isFirst = true")
    let_go.set()
    await page.wait_for_function("() => performance.getEntriesByName(location.href, 'resource').length")  # read anew
    await expect(page.get_by_text("Can't be loaded")).to_be_visible()
    assert await page.evaluate("document.querySelector('figure').isFirst")


async def test_a_page_that_comes_back_from_the_history_is_connected_again(open_page: Open) -> None:
    page = await open_page("/console/generations")
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    async with page.expect_request("**/console/events"):
        await page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
