"""What fails is repeated, in order per generation; who fails holds up nobody else, and is disabled at last."""

import asyncio
import json
from typing import Any

import pytest
import structlog
from sqlalchemy import update

from app.notifications.models import MOST_AT_ONCE
from app.notifications.sender import NOTIFICATIONS
from app.notifications.tables import subscriptions
from tests.support.api_harness import error_of
from tests.support.metric_values import value
from tests.support.reports import poll, submit
from tests.support.scripted_provider import Heard, answering, scripted
from tests.support.webhooks_harness import OK, Programs, programs

FAILS = answering(b"no", status="500 Internal Server Error")
PAUSES = (5, 300, 1800, *(hours * 3600 for hours in (2, 5, 10, 14, 20, 24)))
GONE = answering(b"", status="410 Gone")


async def settle(it: Programs, *ids: str) -> list[Heard]:
    return await it.deliver(*(submit(each) for each in ids), *(poll(each, "succeeded") for each in ids))


def outcomes(heard: list[Heard]) -> list[tuple[str, str]]:
    return [(json.loads(each.body)["data"]["id"], json.loads(each.body)["data"]["status"]) for each in heard]


async def test_an_attempt_that_fails_is_repeated_until_it_succeeds(database_url: str) -> None:
    async with programs(database_url, FAILS, FAILS, OK) as it:
        endpoint = await it.webhook()
        [first] = await settle(it, "a")
        assert (await it.shown(endpoint))["failure_count"] == 1
        it.room.pass_time(seconds=4.9)
        assert await it.send() == []
        it.room.pass_time(seconds=0.6)
        [second] = await it.send()
        it.room.pass_time(minutes=5.5)
        [third] = await it.send()
        assert first.body == second.body == third.body
        assert len({each.header("webhook-timestamp") for each in (first, second, third)}) == 3
        shown = await it.shown(endpoint)
        assert (shown["failure_count"], shown["last_failure_at"] is not None) == (0, True)
        [row] = await it.notifications()
        assert [attempt["status"] for attempt in row["attempts"]] == [500, 500, 200]
        assert (row["status"], row["error"], row["next_attempt_at"]) == ("delivered", None, None)


async def test_after_ten_attempts_it_is_dead_and_can_be_sent_again(database_url: str) -> None:
    async with programs(database_url, *[FAILS] * 10, OK) as it:
        await it.webhook()
        heard = await settle(it, "a")
        for seconds in PAUSES:
            it.room.pass_time(seconds=seconds * 1.1)
            heard += await it.send()
        assert len(heard) == 10
        [row] = await it.notifications()
        assert (row["status"], row["error"], len(row["attempts"])) == ("dead", "status 500", 10)
        it.room.pass_time(days=2)
        assert await it.send() == []
        answer = await it.ask("shop", "POST", f"notifications/{row['id']}/resend")
        assert (answer.json()["status"], answer.json()["ended_at"]) == ("pending", None)
        assert len(await it.send()) == 1
        [row] = await it.notifications()
        assert (row["status"], len(row["attempts"])) == ("delivered", 11)


async def test_retry_after_is_honoured(database_url: str) -> None:
    slow_down = answering(b"", status="429 Too Many Requests", retry_after="120")
    async with programs(database_url, slow_down, OK) as it:
        await it.webhook()
        assert len(await settle(it, "a")) == 1
        it.room.pass_time(seconds=119)
        assert await it.send() == []
        it.room.pass_time(seconds=1)
        assert len(await it.send()) == 1


async def test_an_answer_of_any_bytes_is_kept_as_text(database_url: str) -> None:
    async with programs(database_url, answering(b"a\x00b\xff\xed\xa0\x80" + b"c" * 5000)) as it:
        await it.webhook()
        await settle(it, "a")
        [row] = await it.notifications()
        excerpt = row["attempts"][0]["excerpt"]
        assert excerpt.startswith("a\N{REPLACEMENT CHARACTER}b")
        assert len(excerpt) <= 1024


async def test_a_redirect_is_a_failure(database_url: str) -> None:
    async with programs(database_url, answering(b"", status="302 Found", location="/other"), OK) as it:
        await it.webhook()
        assert [each.target for each in await settle(it, "a")] == ["/hook"]
        [row] = await it.notifications()
        assert (row["status"], row["error"]) == ("pending", "status 302")


async def test_of_one_generation_a_later_event_waits_for_the_earlier(database_url: str) -> None:
    async with programs(database_url, FAILS, OK) as it:
        await it.webhook(event_types=["generation.queued", "generation.processing", "generation.succeeded"])
        heard = await it.deliver(submit("a"))
        heard += await it.deliver(poll("a", "processing"), submit("b"))
        heard += await it.deliver(poll("a", "succeeded"), poll("b", "succeeded"))
        assert outcomes(heard) == [("a", "queued"), ("b", "queued"), ("b", "succeeded")]
        it.room.pass_time(seconds=6)
        assert outcomes(await it.send()) == [("a", "queued"), ("a", "processing"), ("a", "succeeded")]


async def test_a_later_event_is_sent_when_the_earlier_is_dead(database_url: str) -> None:
    async with programs(database_url, *[FAILS] * 10, OK) as it:
        await it.webhook(event_types=["generation.queued", "generation.succeeded"])
        await it.deliver(submit("a"))
        it.room.pass_time(seconds=1)
        await it.deliver(poll("a", "succeeded"))
        heard: list[Heard] = []
        for seconds in PAUSES:
            it.room.pass_time(seconds=seconds * 1.1)
            heard += await it.send()
        assert outcomes(heard) == [("a", "queued")] * 9 + [("a", "succeeded")]
        assert [row["status"] for row in await it.notifications()] == ["dead", "delivered"]


async def test_410_disables_and_enabling_sends_what_is_held(database_url: str) -> None:
    async with programs(database_url, GONE, OK) as it:
        endpoint = await it.webhook()
        assert len(await settle(it, "a")) == 1
        shown = await it.shown(endpoint)
        assert (shown["status"], shown["disabled_at"] is not None) == ("disabled", True)
        it.room.pass_time(seconds=1)
        assert await settle(it, "b") == []
        it.room.pass_time(days=1)
        assert await settle(it, "c") == []
        assert [row["status"] for row in await it.notifications()] == ["dead", "held", "held"]
        it.room.pass_time(days=1, hours=1)
        await it.dispatch()
        answer = await it.ask("shop", "PATCH", f"webhooks/{endpoint['id']}", json={"status": "active"})
        assert (answer.json()["status"], answer.json()["disabled_at"]) == ("active", None)
        assert outcomes(await it.send()) == [("c", "succeeded")]
        rows = await it.notifications()
        assert [(row["status"], row["error"]) for row in rows] == [
            ("dead", "status 410"),
            ("dead", "held_too_long"),
            ("delivered", None),
        ]
        answer = await it.ask("shop", "POST", f"webhooks/{endpoint['id']}/resend")
        assert answer.json() == {"object": "resend", "count": 2}
        assert sorted(outcomes(await it.send())) == [("a", "succeeded"), ("b", "succeeded")]


async def test_paused_holds_events_and_lets_none_of_them_out(database_url: str) -> None:
    async with programs(database_url, FAILS, OK) as it:
        endpoint = await it.webhook()
        assert len(await settle(it, "a")) == 1
        await it.ask("shop", "PATCH", f"webhooks/{endpoint['id']}", json={"status": "paused"})
        it.room.pass_time(hours=1)
        assert await settle(it, "b") == []
        assert [row["status"] for row in await it.notifications()] == ["held", "held"]
        await it.ask("shop", "PATCH", f"webhooks/{endpoint['id']}", json={"status": "active"})
        assert sorted(outcomes(await it.send())) == [("a", "succeeded"), ("b", "succeeded")]


async def test_five_days_of_failure_disable_and_somebody_is_notified_three_times(database_url: str) -> None:
    async with programs(database_url, FAILS) as it:
        watcher = await it.webhook("tests", event_types=["receiver.alarm"], url=f"{it.receiver.url}/alarms")
        endpoint = await it.webhook()
        with structlog.testing.capture_logs() as logged:
            for day in range(6):
                await settle(it, f"generation-{day}")
                it.room.pass_time(days=1, seconds=1)
        assert (await it.shown(endpoint))["status"] == "disabled"
        lines = [(line["event"], line.get("stage")) for line in logged if line["event"].startswith("webhook.")]
        theirs = [
            (line["event"], line.get("stage"))
            for line in logged
            if line["event"].startswith("webhook.") and line["endpoint_id"] == endpoint["id"]
        ]
        assert theirs == [("webhook.failing", "first"), ("webhook.failing", "half"), ("webhook.disabled", None)]
        assert len(lines) > len(theirs)
        alarms = [row for row in await it.notifications(endpoint_id=watcher["id"]) if row["attempts"]]
        assert {row["event_type"] for row in alarms} == {"receiver.alarm"}


@pytest.mark.parametrize("is_enabled_anew", [False, True])
async def test_an_endpoint_that_works_again_clears_its_alarm(database_url: str, is_enabled_anew: bool) -> None:
    async with programs(database_url, GONE if is_enabled_anew else FAILS, OK) as it:
        await it.webhook("tests", event_types=["receiver.alarm"], url=f"{it.receiver.url}/alarms")
        endpoint = await it.webhook()
        heard = await settle(it, "a") + await it.send()
        if is_enabled_anew:
            await it.ask("shop", "PATCH", f"webhooks/{endpoint['id']}", json={"status": "active"})
        it.room.pass_time(seconds=6)
        heard += [*await settle(it, "b"), *await it.send(), *await it.send(), *await settle(it, "c"), *await it.send()]
        alarms = [json.loads(each.body)["data"] for each in heard if each.target == "/alarms"]
        assert {(each["alarm"], each["endpoint_id"]) for each in alarms} == {("webhook_failing", endpoint["id"])}
        assert [each["raised"] for each in alarms] == [True, False]


async def test_an_endpoint_that_answers_again_begins_anew(database_url: str) -> None:
    async with programs(database_url, *[FAILS] * 4, OK, FAILS) as it:
        endpoint = await it.webhook()
        for day in range(3):
            await settle(it, f"generation-{day}")
            it.room.pass_time(days=2)
        await it.send()
        it.room.pass_time(days=2)
        await settle(it, "later")
        assert (await it.shown(endpoint))["status"] == "active"


async def test_one_endpoint_has_five_attempts_under_way_and_one_while_it_fails(database_url: str) -> None:
    async with programs(database_url, FAILS) as it:
        await it.webhook()
        sender = it.room.service.notification_sender
        await it.record(*(submit(f"g{number}") for number in range(8)))
        await it.record(*(poll(f"g{number}", "succeeded") for number in range(8)))
        await it.dispatch()
        for expected in (MOST_AT_ONCE, 1, 1, 1):
            sender.wake()
            await sender.run_once()
            assert sender.under_way == expected
            await sender.idle()
        assert len(it.receiver.heard) == MOST_AT_ONCE + 3


async def test_slow_endpoints_that_fail_take_half_of_the_attempts_of_a_process(database_url: str) -> None:
    is_over = asyncio.Event()

    async def hang(_: asyncio.StreamWriter) -> None:
        await is_over.wait()

    async with programs(database_url, RECEIVER_NOTIFY_CONCURRENCY="4") as it, scripted(hang) as slow:
        for _ in range(6):
            await it.webhook(url=f"{slow.url}/hook")
        async with it.room.service.database.transaction() as connection:
            await connection.execute(update(subscriptions).values(failure_count=1))
        await it.webhook("other")
        await it.record(submit("a"), submit("b"), poll("a", "succeeded"), poll("b", "succeeded"))
        await it.dispatch()
        sender = it.room.service.notification_sender
        while len(it.receiver.heard) < 2 or len(slow.heard) < 2:
            sender.wake()
            await sender.run_once()
        assert sender.under_way <= 4
        assert len(slow.heard) == 2
        is_over.set()


async def test_a_dead_endpoint_holds_up_no_other(database_url: str) -> None:
    async with programs(database_url) as it:
        dead = await it.webhook(url="http://127.0.0.1:1/hook")
        await it.webhook("other")
        heard = await settle(it, *(f"g{number}" for number in range(30)))
        assert len(heard) == 30
        rows = await it.notifications(endpoint_id=dead["id"], limit=200)
        assert {row["error"] for row in rows if row["attempts"]} == {"connect_failed"}


async def test_a_test_event_is_sent_at_once_and_once(database_url: str) -> None:
    async with programs(database_url, OK, FAILS) as it:
        endpoint = await it.webhook(event_types=["generation.failed"])
        results = [(await it.ask("shop", "POST", f"webhooks/{endpoint['id']}/test")).json() for _ in range(2)]
        assert [(each["status"], each["response_status"], each["attempts"]) for each in results] == [
            ("succeeded", 200, 1),
            ("failed", 500, 1),
        ]
        assert results[0]["event_type"] == json.loads(it.receiver.heard[0].body)["type"] == "webhook.test"
        assert results[0]["event_id"] == it.receiver.heard[0].header("webhook-id")
        assert (await it.shown(endpoint))["failure_count"] == 0
        it.room.pass_time(hours=1)
        assert await it.send() == []
        listed = (await it.ask("shop", "GET", f"webhooks/{endpoint['id']}/deliveries")).json()
        assert sorted(each["id"] for each in listed["data"]) == sorted(each["id"] for each in results)


async def test_five_test_events_are_sent_at_once(sqlite_url: str) -> None:
    answered = asyncio.Event()

    async def slow(writer: asyncio.StreamWriter) -> None:
        await answered.wait()
        await OK(writer)

    async with programs(sqlite_url, slow) as it:
        endpoint = await it.webhook()
        path = f"webhooks/{endpoint['id']}/test"
        calls = [asyncio.create_task(it.ask("shop", "POST", path)) for _ in range(MOST_AT_ONCE)]
        while len(it.receiver.heard) < MOST_AT_ONCE:
            await asyncio.sleep(0)
        assert error_of(await it.ask("shop", "POST", path)) == (503, "overloaded")
        answered.set()
        assert [(await call).json()["status"] for call in calls] == ["succeeded"] * MOST_AT_ONCE


async def test_a_page_of_notifications_leads_to_the_next(database_url: str) -> None:
    async with programs(database_url) as it:
        endpoint = await it.webhook()
        for number in range(3):
            it.room.pass_time(seconds=1)
            await settle(it, f"g{number}")
        first = (await it.ask("shop", "GET", "notifications?limit=2")).json()
        assert [row["generation_id"] for row in first["data"]] == ["g2", "g1"]
        second = (await it.ask("shop", "GET", f"notifications?limit=2&cursor={first['next_cursor']}")).json()
        assert ([row["generation_id"] for row in second["data"]], second["next_cursor"]) == (["g0"], None)
        for chosen, expected in (
            ({"generation_id": "g1"}, ["g1"]),
            ({"status": "dead"}, []),
            ({"status": "delivered", "endpoint_id": endpoint["id"]}, ["g0", "g1", "g2"]),
            ({"endpoint_id": "whend_unknown"}, []),
        ):
            assert [row["generation_id"] for row in await it.notifications("shop", **chosen)] == expected
        assert await it.notifications("other") == []
        assert error_of(await it.ask("shop", "GET", "notifications?status=lost")) == (400, "validation_failed")
        [row] = await it.notifications("shop", generation_id="g1")
        assert error_of(await it.ask("other", "POST", f"notifications/{row['id']}/resend")) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"status": "delivered"}, 3),
        ({"status": "delivered", "since": "2026-05-10T12:00:02Z"}, 2),
        ({"status": "delivered", "since": "2026-05-10T12:00:02Z", "until": "2026-05-10T12:00:03Z"}, 1),
        ({"since": "2026-05-10T12:00:00Z"}, 0),
    ],
)
async def test_what_was_written_in_a_time_is_sent_again(database_url: str, body: dict[str, Any], expected: int) -> None:
    async with programs(database_url) as it:
        endpoint = await it.webhook()
        for number in range(3):
            it.room.pass_time(seconds=1)
            await settle(it, f"g{number}")
        answer = await it.ask("shop", "POST", f"webhooks/{endpoint['id']}/resend", json=body)
        assert answer.json()["count"] == expected
        assert len(await it.send()) == expected


async def test_attempts_are_counted_by_what_came_of_them(sqlite_url: str) -> None:
    async with programs(sqlite_url, FAILS, OK, GONE) as it:
        names = ("delivered", "failed", "dead")
        before = {name: value(NOTIFICATIONS.labels(name)) for name in names}
        await it.webhook()
        await settle(it, "a")
        it.room.pass_time(seconds=6)
        await it.send()
        await settle(it, "b")
        after = {name: value(NOTIFICATIONS.labels(name)) for name in names}
        assert {name: after[name] - before[name] for name in names} == dict.fromkeys(names, 1)
