"""What an admin does on the pages, what others may not, and all of it by keyboard too."""

import httpx
import pytest
from playwright.async_api import Page, expect

from app.core.auth import Role
from app.sandbox.server import ServedSandbox
from tests.browser.conftest import TOKENS, Open, open_generation
from tests.support.browser import Watch, reload_until
from tests.support.made_up_record import FAILED_ID
from tests.support.receivers import Receiver

_WITHOUT_COMMANDS = """
delete HTMLButtonElement.prototype.commandForElement;
addEventListener("command", (event) => event.preventDefault(), true);
"""


async def test_a_generation_is_polled_now(open_page: Open, service: Receiver) -> None:
    page, _ = await open_generation(open_page, service)
    await page.get_by_role("button", name="Poll now").click()
    await expect(page.get_by_role("status").filter(has_text="(nothing new)")).to_be_visible()


async def replay(page: Page) -> None:
    await page.get_by_role("button", name="Replay").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.get_by_role("button", name="Replay").click()
    await page.get_by_role("dialog").get_by_role("button", name="Replay").click()
    await expect(page.get_by_role("status").filter(has_text="Replayed 3 deliveries")).to_be_visible()


@pytest.mark.parametrize("scripts", [True, False])
async def test_the_deliveries_of_a_generation_are_replayed(open_page: Open, scripts: bool) -> None:
    await replay(await open_page(f"/console/generations/{FAILED_ID}", java_script_enabled=scripts))


async def test_a_dialog_opens_and_closes_in_a_browser_of_2024_too(open_page: Open) -> None:
    page = await open_page(f"/console/generations/{FAILED_ID}")
    await page.add_init_script(_WITHOUT_COMMANDS)
    await page.reload()
    await replay(page)


async def test_a_generation_that_settles_meanwhile_is_forgotten_once_its_id_is_typed(
    open_page: Open, rivya: ServedSandbox, service: Receiver
) -> None:
    page, generation_id = await open_generation(open_page, service)
    dialog, unknown = page.get_by_role("dialog"), page.get_by_label("Its outcome is not known yet")
    await page.get_by_role("button", name="Forget").click()
    await expect(unknown).to_be_visible()
    await rivya.sandbox.settle(generation_id)
    await expect(page.locator(".subtitle").get_by_text("succeeded")).to_be_visible()
    await expect(unknown).to_be_visible()  # what somebody is reading stays
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(unknown).to_have_count(0)
    await page.get_by_role("button", name="Forget").click()
    await dialog.get_by_label("to confirm").fill("task_of_somebody_else")
    await dialog.get_by_role("button", name="Forget").click()
    await expect(dialog).to_be_visible()
    await dialog.get_by_label("to confirm").fill(generation_id)
    await dialog.get_by_role("button", name="Forget").click()
    await expect(page.get_by_role("status").filter(has_text=f"Forgotten: {generation_id}")).to_be_visible()
    assert (await service.client.get(f"/api/v1/generations/{generation_id}")).status_code == 404


async def test_a_dialog_is_opened_used_and_left_by_keyboard_alone(open_page: Open, service: Receiver) -> None:
    page, _ = await open_generation(open_page, service)
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to content"
    await page.keyboard.press("Enter")
    while await page.evaluate("document.activeElement.textContent.trim()") != "Forget":
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).not_to_be_visible()
    assert await page.evaluate("document.activeElement.textContent.trim()") == "Forget"


async def test_a_replay_shows_first_what_it_would_do(open_page: Open) -> None:
    page = await open_page("/console/deliveries?outcome=conflict")
    await page.get_by_role("link", name="Replay what matches").click()
    await expect(page.get_by_text("This page has changed nothing")).to_be_visible()
    await expect(page.get_by_role("heading", name="1 delivery: 1 conflict")).to_be_visible()
    await page.get_by_role("button", name="Replay it").click()
    await expect(page.get_by_role("status").filter(has_text="Replayed 1 delivery: 1 conflict")).to_be_visible()


async def test_a_delivery_shows_its_body_and_headers_to_an_admin_only(open_page: Open) -> None:
    page = await open_page("/console/deliveries/evt_unreadable")
    await expect(page.get_by_label("Body", exact=True)).to_contain_text("ff fe 20 6e")
    page = await open_page("/console/deliveries/evt_unreadable", Role.READ)
    await expect(page.get_by_text("shown to tokens of the role admin")).to_be_visible()
    assert await page.get_by_label("Body", exact=True).count() == 0


async def test_the_secret_of_the_endpoint_is_rotated(open_page: Open) -> None:
    page = await open_page("/console/endpoint")
    await page.get_by_role("button", name="Rotate").click()
    await expect(page.get_by_role("dialog")).to_contain_text("still accepted for 3 d")
    await page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    await expect(page.get_by_role("status").filter(has_text="A new secret is in use")).to_be_visible(timeout=20_000)
    await expect(page.get_by_role("region", name="Signing secrets in use").locator("tbody tr")).to_have_count(2)


async def test_a_test_delivery_is_asked_for_and_seen(open_page: Open) -> None:
    page = await open_page("/console/endpoint")
    await page.get_by_role("button", name="Test", exact=True).click()
    await expect(page.get_by_text("came and was verified")).to_be_visible(timeout=20_000)


async def test_what_a_lost_database_left_at_rivya_is_removed(
    open_page: Open, rivya: ServedSandbox, service: Receiver
) -> None:
    url = f"{service.process.url}/rivya/webhook/left-by-a-lost-database"
    async with httpx.AsyncClient(
        base_url=rivya.base_url, headers={"Authorization": "Bearer rvya_sk_sandbox"}
    ) as client:
        left = (await client.post("/api/v1/webhooks", json={"name": "rivya-receiver", "url": url})).json()["id"]
    page = await open_page("/console/endpoint")
    await page.get_by_role("button", name="Remove").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("to confirm").fill(left)
    await dialog.get_by_role("button", name="Remove").click()
    await expect(page.get_by_role("status").filter(has_text=f"Removed at Rivya: {left}")).to_be_visible()
    await expect(page.get_by_text("Nothing: Rivya has no endpoint")).to_be_visible()


async def test_a_token_is_made_shown_once_used_limited_and_revoked(open_page: Open, service: Receiver) -> None:
    page = await open_page("/console/tokens")
    await page.get_by_role("button", name="Create a token").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("from-the-console")
    await dialog.get_by_label("Credits a day").fill("500")
    await dialog.get_by_role("button", name="Create").click()
    await expect(page.get_by_text("never shown again")).to_be_visible()
    secret = await page.locator(".secret code").inner_text()
    headers = {"Authorization": f"Bearer {secret}"}
    me = (await service.client.get("/api/v1/tokens/me", headers=headers)).json()
    assert (me["name"], me["role"], me["credits_per_day"]) == ("from-the-console", "write-own", 500)
    await page.get_by_role("link", name="I have copied it").click()
    row = page.get_by_role("row").filter(has_text="from-the-console")
    await expect(row).to_contain_text("0 of 500 a day")
    assert secret not in await page.content()
    await row.get_by_role("button", name="Revoke").click()
    await row.get_by_label("to confirm").fill("from-the-console")
    await row.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    await expect(page.get_by_role("status").filter(has_text="Revoked")).to_be_visible()
    assert (await service.client.get("/api/v1/tokens/me", headers=headers)).status_code == 401
    page = await open_page("/console/audit?target=from-the-console")
    await expect(page.get_by_text("token.revoked")).to_be_visible()


@pytest.mark.parametrize("role", Role)
async def test_a_role_is_shown_what_it_may_do_and_nothing_else(
    open_page: Open, watches: list[Watch], role: Role
) -> None:
    is_admin = role is Role.ADMIN
    page = await open_page("/console/generations", role)
    pages = await page.get_by_role("navigation", name="Pages").get_by_role("link").all_inner_texts()
    assert ("Refusals" in pages, "Audit" in pages, "Usage" in pages) == (is_admin, is_admin, True)
    assert (await page.get_by_role("heading", name="No generations yet").count() == 1) == role.is_fenced
    if not role.is_fenced:
        await page.goto(f"/console/generations/{FAILED_ID}")
        assert (await page.get_by_role("button", name="Forget").count() == 1) == is_admin
    if not is_admin:
        watches[-1].allowed.append("status of 403")
        for path in ("/console/refusals", "/console/deliveries/replay", "/console/audit"):
            answer = await page.goto(path)
            assert answer is not None
            assert answer.status == 403
            await expect(page.get_by_role("alert")).to_contain_text("admin is needed")


async def test_a_form_sent_by_a_role_that_may_not_is_refused_and_in_the_audit(
    open_page: Open, watches: list[Watch]
) -> None:
    page = await open_page(f"/console/generations/{FAILED_ID}", Role.READ)
    watches[-1].allowed.append("status of 403")
    await page.evaluate(
        f"""() => {{
            const form = document.querySelector("form[action='/console/logout']");
            form.action = '/console/generations/{FAILED_ID}/forget';
            form.submit();
        }}"""
    )
    await expect(page.get_by_role("alert")).to_contain_text("admin is needed")
    page = await open_page("/console/audit?action=call.refused")
    await reload_until(page, page.get_by_text("/console/generations/{generation_id:path}/forget"))


async def test_a_session_ends_with_its_sign_out(open_page: Open) -> None:
    page = await open_page("/console/login", None)
    await page.get_by_label("Token").fill(TOKENS[Role.WRITE])
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/console")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_text("You are signed out")).to_be_visible()
    await page.goto("/console/usage?by=model")
    await expect(page.get_by_label("Token")).to_be_visible()
    await page.get_by_label("Token").fill(TOKENS[Role.READ])
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/console/usage?by=model")
