"""The lists: each filter, search, pages of a list, the gallery, and changes that appear without reloading."""

import re

import pytest
from playwright.async_api import Page, expect

from app.core.auth import Role
from tests.browser.conftest import Open
from tests.support.browser import Watch
from tests.support.made_up_record import FAILED_ID, LOST_ID, NEWEST_ID, OPEN_ID
from tests.support.receivers import Receiver


async def texts(page: Page, label: str) -> list[str]:
    """What is in the cells with this label."""
    return [text.strip() for text in await page.locator(f"td[data-label='{label}']").all_inner_texts()]


@pytest.mark.parametrize(
    ("label", "value", "column", "expected"),
    [
        ("Model", "sandbox-audio", "Model", "sandbox-audio"),
        ("Token", "newsletter", "Model", "newsletter"),
        ("client_request_id", "order-4094", "Generation", "order-4094"),
    ],
)
async def test_generations_are_filtered_by_what_is_typed(
    open_page: Open, label: str, value: str, column: str, expected: str
) -> None:
    page = await open_page("/console/generations")
    await page.get_by_label(label, exact=True).fill(value)
    await page.keyboard.press("Enter")
    await page.wait_for_url(re.compile(r"\?"))
    shown = await texts(page, column)
    assert shown
    assert all(expected in text for text in shown)


@pytest.mark.parametrize(
    ("label", "choice", "expected"),
    [("Status", "failed", FAILED_ID), ("Tracking", "lost", LOST_ID), ("Tracking", "watching", OPEN_ID)],
)
async def test_generations_are_filtered_by_what_is_chosen(
    open_page: Open, label: str, choice: str, expected: str
) -> None:
    page = await open_page("/console/generations")
    await page.get_by_label(label, exact=True).select_option(choice)  # is sent by itself
    await page.wait_for_url(re.compile(rf"\?{label.lower()}={choice}$"))
    assert await page.get_by_role("link", name=expected[:20]).count() == 1


async def test_a_time_filters_generations_and_a_shared_url_shows_the_same(open_page: Open) -> None:
    page = await open_page("/console/generations")
    await page.get_by_label("Before (UTC)").fill("2020-01-01T00:00")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    other = await open_page(page.url, Role.READ)
    await expect(other.get_by_role("heading", name="Nothing matches")).to_be_visible()


@pytest.mark.parametrize("text", ["task_newe", NEWEST_ID, "order-4094"])
async def test_a_search_finds_the_beginning_of_an_id_or_a_whole_reference(open_page: Open, text: str) -> None:
    page = await open_page("/console/generations")
    await page.get_by_label("Search").fill(text)
    await page.keyboard.press("Enter")
    await page.wait_for_url(re.compile("q="))
    await expect(page.locator("tbody tr")).to_have_count(1)
    await page.get_by_role("link", name="task_newest").click()
    await expect(page.get_by_role("heading", name="Generation")).to_be_visible()


async def test_older_pages_follow_and_lead_back_with_the_filters_unchanged(open_page: Open) -> None:
    page = await open_page("/console/generations?limit=20&status=succeeded")
    first = await texts(page, "Generation")
    await page.get_by_role("link", name="Older").click()
    await page.wait_for_url(re.compile("cursor="))
    second = await texts(page, "Generation")
    assert len(first) == len(second) == 20
    assert not set(first) & set(second)
    await page.get_by_role("link", name="Newest").click()
    await page.wait_for_url(re.compile(r"status=succeeded$"))
    assert await texts(page, "Generation") == first


async def test_the_gallery_shows_pictures_players_and_what_is_missing(open_page: Open) -> None:
    page = await open_page("/console/generations")
    await page.get_by_role("link", name="Gallery").click()
    await page.wait_for_url(re.compile("view=gallery"))
    images = page.locator(".gallery img")
    await expect(images.first).to_be_visible()
    assert await images.first.get_attribute("loading") == "lazy"
    assert await images.first.get_attribute("referrerpolicy") == "no-referrer"
    assert await page.locator(".gallery audio").count() > 0
    await expect(page.get_by_text("no result yet").first).to_be_visible()
    await expect(page.get_by_text("Can't be loaded").filter(visible=True).first).to_be_visible()


@pytest.mark.parametrize("outcome", ["applied", "conflict", "test", "unknown_type", "unreadable"])
async def test_deliveries_are_filtered_by_outcome(open_page: Open, outcome: str) -> None:
    page = await open_page("/console/deliveries")
    await page.get_by_label("Outcome").select_option(outcome)
    await page.wait_for_url(re.compile(f"outcome={outcome}"))
    assert set(await texts(page, "Outcome")) == {outcome.replace("_", " ")}


async def test_refusals_are_grouped_by_reason_and_one_group_is_chosen(open_page: Open) -> None:
    page = await open_page("/console/refusals")
    groups = page.get_by_role("region", name="Refusals by reason")
    await expect(groups.get_by_role("row")).to_have_count(4)
    assert "NTP" in await groups.inner_text()
    await groups.get_by_role("link", name="stale timestamp").click()
    await page.wait_for_url(re.compile("reason=stale_timestamp"))
    assert set(await texts(page, "Reason")) == {"stale timestamp"}


async def test_usage_says_who_spent_most_and_gives_a_file(open_page: Open) -> None:
    page = await open_page("/console/usage")
    await page.get_by_role("link", name="7 days").click()
    await page.wait_for_url(re.compile("from="))
    by_token = page.get_by_role("region", name="Usage by token", exact=True)
    credits_used = [
        float(text.replace(",", "")) for text in await by_token.locator("td[data-label=Credits]").all_inner_texts()
    ]
    assert credits_used == sorted(credits_used, reverse=True)
    async with page.expect_download() as downloading:
        await page.get_by_role("link", name="CSV").click()
    file = await (await downloading.value).path()
    lines = file.read_text().splitlines()
    assert lines[0] == "day,token,model,generations,open,reserved_credits,final_credits"
    assert any(",storefront," in line for line in lines)


async def test_a_new_generation_and_its_outcome_appear_without_reloading(open_page: Open, service: Receiver) -> None:
    page = await open_page("/console/generations")
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await page.evaluate("window.stays = true")
    generation_id = await service.create(seconds=0.5)
    link = page.get_by_role("link", name=generation_id[:20])
    row = page.locator("tbody tr").filter(has=link)
    await expect(row.get_by_text("succeeded")).to_be_visible()
    assert await page.evaluate("window.stays") is True


async def test_a_connection_that_ends_says_so_and_comes_back(open_page: Open, watches: list[Watch]) -> None:
    page = await open_page("/console/generations")
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    watches[0].allowed.append("ERR_INTERNET_DISCONNECTED")
    await page.context.set_offline(True)
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # connects anew, and can't
    await expect(page.get_by_text("Connection lost")).to_be_visible()
    await page.context.set_offline(False)
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
