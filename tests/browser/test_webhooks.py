"""Webhooks on the pages: made, tested, paused, failing, and what they missed is sent again."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, expect

from app.core.auth import Role
from tests.browser.conftest import TOKENS, Open
from tests.support.browser import CONTRAST, Watch, accessibility_violations, cut_tables, reload_until, sideways_scroll
from tests.support.made_up_record import HOSTILE
from tests.support.receivers import Receiver
from tests.support.sandbox_harness import Inbox, open_inbox


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    async with open_inbox() as listening:
        yield listening


async def create_webhook(open_page: Open, inbox: Inbox, *, name: str, role: Role = Role.ADMIN) -> Page:
    page = await open_page("/console/webhooks", role)
    await page.get_by_role("button", name="Create a webhook").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("URL").fill(inbox.url)
    await dialog.get_by_label("Name").fill(name)
    await dialog.get_by_role("button", name="Create").click()
    await expect(page.locator(".secret code")).to_contain_text("whsec_")
    await page.reload()  # makes no second one, and shows the secret to nobody else
    await expect(page.get_by_text("A secret is shown once")).to_be_visible()
    return page


async def press(page: Page, name: str, *, notice: str) -> None:
    await page.get_by_role("button", name=name, exact=True).click()
    await expect(page.get_by_role("status").filter(has_text=notice)).to_be_visible()


async def delete_webhook(page: Page) -> None:
    await page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("to confirm").fill(page.url.rpartition("/")[2])
    await dialog.get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("status").filter(has_text="Deleted")).to_be_visible()


async def test_a_webhook_is_made_tested_paused_activated_and_deleted(open_page: Open, inbox: Inbox) -> None:
    page = await create_webhook(open_page, inbox, name=HOSTILE[:60])
    await press(page, "Test", notice="The test event was delivered: status 200")
    assert inbox.types == ["webhook.test"]
    await press(page, "Pause", notice="Paused")
    await expect(page.locator(".subtitle").get_by_text("paused")).to_be_visible()
    await press(page, "Activate", notice="Active")
    assert await accessibility_violations(page) == []
    await page.emulate_media(color_scheme="dark")
    assert await accessibility_violations(page, CONTRAST) == []
    await page.set_viewport_size({"width": 360, "height": 800})
    assert await sideways_scroll(page) == 0
    assert await page.evaluate("window.hostile") is None
    await delete_webhook(page)


async def test_what_a_dead_subscriber_missed_is_found_and_sent_again(
    open_page: Open, inbox: Inbox, service: Receiver
) -> None:
    page = await create_webhook(open_page, inbox, name="shop")
    inbox.answers.extend([410])  # gone: nothing is tried again, and the webhook is switched off
    generation_id = await service.create(seconds=0.1)
    await service.settled(generation_id)
    row = page.locator("tr").filter(has_text=generation_id[:10])
    await reload_until(page, row.get_by_text("dead"))
    await expect(page.get_by_text("It is switched off")).to_be_visible()
    await press(page, "Activate", notice="Active")
    await page.get_by_role("button", name="Resend", exact=True).first.click()
    await page.get_by_role("dialog").get_by_role("button", name="Resend").click()
    await expect(page.get_by_role("status").filter(has_text="1 is sent again")).to_be_visible()
    await reload_until(page, row.get_by_text("delivered"))
    assert await cut_tables(page) == 0
    await row.get_by_role("button", name="Resend").click()
    await expect(page.get_by_role("status").filter(has_text="It is sent again")).to_be_visible()
    await page.goto(f"/console/generations/{generation_id}")
    await expect(page.get_by_role("region", name="Notifications").first).to_contain_text("generation.succeeded")
    assert await cut_tables(page) == 0
    await page.goto("/console/notifications?status=delivered")
    await expect(page.locator("tr").filter(has_text=generation_id[:10]).first).to_be_visible()
    assert await cut_tables(page) == 0
    assert await accessibility_violations(page) == []
    await page.goto("/console/webhooks")
    assert await accessibility_violations(page) == []
    await page.get_by_role("link", name="shop").click()
    await delete_webhook(page)


async def test_a_url_that_is_not_allowed_is_refused_on_a_page(
    open_page: Open, inbox: Inbox, watches: list[Watch]
) -> None:
    page = await open_page("/console/webhooks")
    watches[0].allowed.append("status of 400")
    await page.get_by_role("button", name="Create a webhook").click()
    await page.get_by_role("dialog").get_by_label("URL").fill("http://10.0.0.1/hook")
    await page.get_by_role("dialog").get_by_role("button", name="Create").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    await page.get_by_role("link", name="Go back").click()
    await expect(page.get_by_role("heading", name="Webhooks", exact=True)).to_be_visible()


async def test_a_token_sees_only_its_own_webhooks(open_page: Open, inbox: Inbox, service: Receiver) -> None:
    page = await create_webhook(open_page, inbox, name="of a writer", role=Role.WRITE)
    other = await open_page("/console/webhooks", Role.WRITE_OWN)
    await expect(other.get_by_role("heading", name="No webhooks yet")).to_be_visible()
    headers = {"Authorization": f"Bearer {TOKENS[Role.WRITE]}"}
    assert len((await service.client.get("/api/v1/webhooks", headers=headers)).json()["data"]) == 1
    await delete_webhook(page)
