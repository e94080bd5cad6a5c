"""GET /api/v1/events: each transition once and in order, from any cursor; a gap is declared; a long poll is woken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from app.core.auth import Role
from app.core.background import BackgroundLoops
from app.core.clock import SystemClock
from app.ledger.models import Report, Source
from app.operations.retention import Pruning
from tests.support.api_harness import ApiHarness, error_of, open_api
from tests.support.clock import NOON
from tests.support.reports import poll, status_claim, submit, webhook

PATH = "/api/v1/events"
Page = dict[str, Any]


async def page(api: ApiHarness, **parameters: Any) -> Page:
    answer = await api.client.get(PATH, params=parameters)
    assert answer.status_code == 200, answer.text
    content: Page = answer.json()
    return content


def steps(events: Page) -> list[tuple[str, str]]:
    return [(event["generation"]["id"], event["type"].removeprefix("generation.")) for event in events["data"]]


async def all_pages(api: ApiHarness, **parameters: Any) -> list[Page]:
    pages = [await page(api, **parameters)]
    while pages[-1]["has_more"]:
        pages.append(await page(api, **{**parameters, "after": pages[-1]["next_cursor"]}))
    return pages


async def remove(api: ApiHarness, *generation_ids: str) -> None:
    assert await Pruning(api.room.database).generations(generation_ids, now=NOON) == len(generation_ids)


@asynccontextmanager
async def following(api: ApiHarness) -> AsyncIterator[None]:
    """With the loop that wakes those who wait."""
    loops = BackgroundLoops(SystemClock())
    loops.start("tail", api.tail.run_once)
    try:
        yield
    finally:
        api.tail.stop()
        await loops.stop()


async def test_every_transition_is_an_event_in_the_order_of_the_commits(database_url: str) -> None:
    async with open_api(database_url) as api:
        await api.record(submit("a"))
        await api.record(submit("b"), poll("a", "processing"))
        await api.record(webhook("a", "succeeded"), webhook("b", "failed"))
        events = await page(api)
        assert (events["object"], events["has_more"], events["gap"]) == ("list", False, False)
        assert sorted(steps(events)[:1] + steps(events)[3:]) == [("a", "queued"), ("a", "succeeded"), ("b", "failed")]
        last = next(event for event in events["data"] if event["type"] == "generation.succeeded")
        assert last["object"] == "event"
        assert last["created_at"] == last["transition"]["recorded_at"]
        assert last["generation"] == (await api.client.get("/api/v1/generations/a")).json()
        [*_, newest] = (await api.client.get("/api/v1/generations/a/transitions")).json()["data"]
        assert last["transition"] == newest


async def test_pages_join_without_overlap_and_every_event_is_a_cursor(database_url: str) -> None:
    async with open_api(database_url) as api:
        for number in range(7):
            await api.record(submit(f"g{number}"))
        pages = await all_pages(api, limit=3)
        assert [len(it["data"]) for it in pages] == [3, 3, 1]
        everything = [event for it in pages for event in it["data"]]
        assert steps({"data": everything}) == [(f"g{number}", "queued") for number in range(7)]
        for number, event in enumerate(everything):
            assert steps(await page(api, after=event["id"])) == steps({"data": everything[number + 1 :]})
        assert [it["next_cursor"] for it in pages] == [it["data"][-1]["id"] for it in pages]


async def test_a_cursor_of_the_end_goes_on_with_what_comes_later(database_url: str) -> None:
    async with open_api(database_url) as api:
        beginning = (await page(api))["next_cursor"]
        await api.record(submit("a"))
        now = await page(api, after="latest")
        assert now["data"] == []
        await api.record(submit("b"))
        assert steps(await page(api, after=now["next_cursor"])) == [("b", "queued")]
        assert steps(await page(api, after=beginning)) == [("a", "queued"), ("b", "queued")]
        end = await page(api, after=(await page(api))["next_cursor"])
        assert (end["data"], end["has_more"]) == ([], False)
        await api.record(submit("c"))
        assert steps(await page(api, after=end["next_cursor"])) == [("c", "queued")]


@pytest.mark.parametrize("end", ["", "A", "!", "\N{LATIN SMALL LETTER E WITH ACUTE}", "=", "AAAA" * 8])
async def test_a_forged_cursor_is_refused(sqlite_url: str, end: str) -> None:
    async with open_api(sqlite_url) as api:
        await api.record(submit("a"))
        cursor = (await page(api))["next_cursor"]
        letters = [cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :] for place in range(27)]
        for forged in {*letters, cursor[:-1] + end, f"{cursor}{end}x", end or "0"} - {cursor}:
            assert error_of(await api.client.get(PATH, params={"after": forged})) == (400, "validation_failed"), forged


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"type": "generation.failed"}, ["b failed"]),
        ({"type": "generation.queued"}, ["a queued", "b queued", "c queued"]),
        ({"generation_id": "a"}, ["a queued", "a succeeded"]),
        ({"generation_id": "a", "type": "generation.succeeded"}, ["a succeeded"]),
        ({"generation_id": "nobody"}, []),
        ({"submitted_by": "shop"}, ["b queued", "b failed"]),
        ({"model": "z-image"}, ["c queued"]),
        ({"client_request_id": "order-1", "type": "generation.queued"}, ["a queued", "b queued"]),
        ({"submitted_by": "shop", "model": "z-image"}, []),
    ],
)
async def test_filters(database_url: str, parameters: dict[str, str], expected: list[str]) -> None:
    async with open_api(database_url) as api:
        await api.record(submit("a"))
        await api.record(replace(submit("b"), token="shop"))
        claim = replace(status_claim("c", "queued"), model="z-image")
        await api.record(Report(source=Source.OPERATOR, reported_at=NOON, claim=claim))
        await api.record(webhook("a", "succeeded"))
        await api.record(webhook("b", "failed"))
        for limit in (1, 200):
            pages = await all_pages(api, limit=limit, **parameters)
            assert [" ".join(step) for it in pages for step in steps(it)] == expected
        end = pages[-1]["next_cursor"]
        assert (await page(api, after=end, **parameters))["data"] == []


async def test_a_fenced_token_sees_the_events_of_its_own_generations(database_url: str) -> None:
    async with open_api(database_url) as api:
        fenced = api.clients[Role.READ_OWN]
        await api.record(submit("a"), replace(submit("b"), token=str(Role.READ_OWN)))
        answer = await fenced.get(PATH)
        assert steps(answer.json()) == [("b", "queued")]
        await api.record(webhook("a", "succeeded"))
        end = {"after": answer.json()["next_cursor"]}
        for parameters in ({"generation_id": "a"}, {"submitted_by": "other"}, end):
            assert (await fenced.get(PATH, params=parameters)).json()["data"] == []


async def test_a_filtered_page_ends_after_a_bounded_number_of_rows(database_url: str) -> None:
    async with open_api(database_url) as api:
        await api.record(*(submit(f"g{number:04}") for number in range(1100)))
        await api.record(webhook("g0000", "failed"))
        first, second = await all_pages(api, type="generation.failed")
        assert (first["data"], first["has_more"]) == ([], True)
        assert (steps(second), second["has_more"]) == ([("g0000", "failed")], False)


@pytest.mark.parametrize(
    "parameters",
    [{"limit": 0}, {"limit": 1001}, {"type": "generation.test"}, {"status": "failed"}, {"wait": -1}, {"wait": "nan"}],
)
async def test_what_is_not_understood_is_refused(sqlite_url: str, parameters: dict[str, str]) -> None:
    async with open_api(sqlite_url) as api:
        assert error_of(await api.client.get(PATH, params=parameters)) == (400, "validation_failed")


async def test_a_gap_is_declared_once_and_only_to_who_missed_something(database_url: str) -> None:
    async with open_api(database_url) as api:
        for name in ("open", "old", "new", "newer"):
            await api.record(submit(name))
        _, old, new, _ = (await page(api))["data"]
        behind, at_end = (await page(api, limit=1))["next_cursor"], (await page(api))["next_cursor"]
        await remove(api, "old", "new")
        gap = await page(api, after=behind, limit=1)
        assert (steps(gap), gap["gap"]) == ([("newer", "queued")], True)
        assert not (await page(api, after=gap["next_cursor"]))["gap"]
        assert (await page(api, after=old["id"]))["gap"]
        for cursor in (new["id"], at_end):
            assert not (await page(api, after=cursor))["gap"], "its reader had read all that was removed"
        fresh = await all_pages(api, limit=1)
        assert [steps(it) for it in fresh] == [[("open", "queued")], [("newer", "queued")]]
        assert not any(it["gap"] for it in fresh), "nothing is missing from what begins at the oldest"


async def test_the_end_of_a_feed_whose_newest_rows_were_removed_stays_where_it_is(database_url: str) -> None:
    async with open_api(database_url) as api:
        await api.record(submit("a"))
        await api.record(submit("b"))
        cursor = (await page(api))["next_cursor"]
        await remove(api, "a", "b")
        for after in (cursor, "latest"):
            end = await page(api, after=after)
            assert (end["data"], end["gap"]) == ([], False)
            await api.record(submit(f"after {after}"))
            later = await page(api, after=end["next_cursor"])
            assert (steps(later)[-1], later["gap"]) == ((f"after {after}", "queued"), False)


@pytest.mark.parametrize(
    ("parameters", "first"), [({}, "other"), ({"generation_id": "b"}, "b"), ({"type": "generation.failed"}, "b")]
)
async def test_a_long_poll_is_answered_by_the_commit(database_url: str, parameters: dict[str, str], first: str) -> None:
    async with open_api(database_url) as api, following(api), asyncio.timeout(20):
        await api.record(submit("a"))
        cursor = (await page(api))["next_cursor"]
        waiting = asyncio.create_task(page(api, after=cursor, wait=60, **parameters))
        await api.parked_in_feed()
        await api.record(submit("other"))
        await api.record(webhook("b", "failed"))
        events = await waiting
        assert steps(events)[0][0] == first
        end = (await page(api, after="latest"))["next_cursor"]
        assert (await page(api, after=end, wait=0.1, **parameters))["data"] == []


async def test_commits_of_another_replica_wake_it_too(postgres_url: str) -> None:
    async with open_api(postgres_url) as api, open_api(postgres_url) as other, following(api):
        waiting = asyncio.create_task(page(api, wait=60))
        await api.parked_in_feed()
        async with asyncio.timeout(10):
            await other.record(submit("a"))
            assert steps(await waiting) == [("a", "queued")]


async def test_a_process_that_stops_answers_its_long_polls(sqlite_url: str) -> None:
    async with open_api(sqlite_url) as api, following(api):
        waiting = asyncio.create_task(page(api, wait=60))
        await api.parked_in_feed()
        api.tail.stop()
        async with asyncio.timeout(10):
            assert (await waiting)["data"] == []
            assert (await page(api, wait=60))["data"] == []


async def test_head_is_answered_without_waiting_for_events(sqlite_url: str) -> None:
    async with open_api(sqlite_url) as api:
        answer: httpx.Response = await api.client.head(PATH, headers={"Accept": "text/event-stream"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
