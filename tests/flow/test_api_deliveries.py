"""GET /api/v1/deliveries: what came, for everybody who reads; what it carried, for the role admin alone."""

import base64
from dataclasses import replace
from datetime import timedelta

import pytest

from app.ledger.models import Outcome, Report, Source
from tests.support.api_harness import ApiHarness, error_of, ids, open_api
from tests.support.clock import NOON
from tests.support.reports import webhook

PATH = "/api/v1/deliveries"
BODY = '{"id":"evt_0","ü":1}'.encode()


def came(
    number: int, *, body: bytes = BODY, stored_outcome: Outcome | None = None, event_type: str | None = None
) -> Report:
    report = webhook(f"g{number}", "succeeded", event_id=f"evt_{number}", at=NOON + timedelta(minutes=number))
    assert report.delivery is not None
    delivery = replace(
        report.delivery, body=body, headers={"rivya-signature": "t=1,v1=00"}, stored_outcome=stored_outcome
    )
    if event_type is not None:
        delivery = replace(delivery, event_type=event_type)
    claim = None if stored_outcome is not None else report.claim
    return Report(source=Source.WEBHOOK, reported_at=report.reported_at, claim=claim, delivery=delivery)


async def a_few(api: ApiHarness) -> None:
    await api.record(came(0), came(1), came(2, stored_outcome=Outcome.TEST, event_type="webhook.test"), came(0))


async def test_a_delivery_is_told_without_what_it_carried(database_url: str) -> None:
    async with open_api(database_url) as api:
        await a_few(api)
        delivery = {
            "object": "delivery",
            "event_id": "evt_0",
            "event_type": "generation.succeeded",
            "generation_id": "g0",
            "endpoint_id": None,
            "received_at": "2026-05-10T12:00:00.000Z",
            "outcome": "applied",
            "attempts": 2,
            "body_pruned_at": None,
        }
        assert (await api.client.get(f"{PATH}/evt_0")).json() == delivery
        assert (await api.writer.get(f"{PATH}/evt_0")).json() == delivery
        assert (await api.admin.get(PATH)).json()["data"][2] == delivery


async def test_an_admin_sees_what_it_carried(database_url: str) -> None:
    async with open_api(database_url) as api:
        await a_few(api)
        delivery = (await api.admin.get(f"{PATH}/evt_0")).json()
        assert (delivery["body"].encode(), base64.b64decode(delivery["body_base64"])) == (BODY, BODY)
        assert delivery["headers"] == {"rivya-signature": "t=1,v1=00"}


async def test_bytes_that_are_no_text_are_shown_as_bytes(database_url: str) -> None:
    async with open_api(database_url) as api:
        await api.record(came(0, body=b"\xff\x00", stored_outcome=Outcome.UNREADABLE))
        delivery = (await api.admin.get(f"{PATH}/evt_0")).json()
        assert (delivery["body"], base64.b64decode(delivery["body_base64"])) == (None, b"\xff\x00")


@pytest.mark.parametrize("unknown", ["evt_9", "%00", "x" * 300])
async def test_an_unknown_delivery_is_not_found(database_url: str, unknown: str) -> None:
    async with open_api(database_url) as api:
        assert error_of(await api.admin.get(f"{PATH}/{unknown}")) == (404, "not_found")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["evt_2", "evt_1", "evt_0"]),
        ({"generation_id": "g1"}, ["evt_1"]),
        ({"outcome": "test"}, ["evt_2"]),
        ({"event_type": "generation.succeeded"}, ["evt_1", "evt_0"]),
        ({"received_after": "2026-05-10T12:01:00Z"}, ["evt_2", "evt_1"]),
        ({"received_before": "2026-05-10T12:01:00Z"}, ["evt_0"]),
    ],
)
async def test_each_filter_narrows(database_url: str, filters: dict[str, str], expected: list[str]) -> None:
    async with open_api(database_url) as api:
        await a_few(api)
        assert ids(await api.client.get(PATH, params=filters), "event_id") == expected


async def test_pages_show_each_once(database_url: str) -> None:
    async with open_api(database_url) as api:
        await api.record(*(came(n) for n in range(5)))
        event_ids: list[str] = []
        asked: dict[str, str] = {"limit": "2"}
        for _ in range(3):
            answer = await api.client.get(PATH, params=asked)
            event_ids += ids(answer, "event_id")
            asked |= {"cursor": answer.json()["next_cursor"] or ""}
        assert event_ids == [f"evt_{n}" for n in reversed(range(5))]
        assert asked["cursor"] == ""


async def test_a_cursor_of_another_list_is_refused(database_url: str) -> None:
    async with open_api(database_url) as api:
        await a_few(api)
        cursor = (await api.client.get("/api/v1/generations", params={"limit": 1})).json()["next_cursor"]
        assert error_of(await api.client.get(PATH, params={"cursor": cursor})) == (400, "validation_failed")
