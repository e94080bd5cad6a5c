"""GET /api/v1/generations/{id} and its history: Rivya's object unchanged, and what the receiver knows beside it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.api_harness import error_of, ids, open_api
from tests.support.clock import NOON
from tests.support.http_paths import HttpPath, on_both_paths
from tests.support.ledger_harness import GRACE
from tests.support.reports import poll, status_claim, submit, webhook

UNKNOWN = ["nobody", "%00", "%ff", "a" * 5000, "%0a", "..%5c", "🦜"]


@on_both_paths
async def test_a_generation_is_rivyas_object_plus_three_members(database_url: str, http: HttpPath) -> None:
    async with open_api(database_url, http=http) as api:
        settling = webhook("g", "succeeded", at=NOON + timedelta(seconds=30))
        claim = status_claim("g", "succeeded", model="z-image", result={"urls": ["u"]}, a_new_member=[1])
        await api.record(submit("g"), replace(settling, claim=claim))
        answer = await api.client.get("/api/v1/generations/g")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {
            "id": "g",
            "status": "succeeded",
            "model": "z-image",
            "result": {"urls": ["u"]},
            "a_new_member": [1],
            "metadata": None,
            "tracking": {
                "state": "settled",
                "submitted_by": None,
                "client_request_id": "order-1",
                "settled_by": "webhook",
                "first_seen_at": "2026-05-10T12:00:00.000Z",
                "settled_at": "2026-05-10T12:00:30.000Z",
                "callback_received_at": "2026-05-10T12:00:30.000Z",
                "polls": 0,
                "next_poll_at": None,
            },
        }


@on_both_paths
async def test_an_open_generation_says_when_it_is_polled_next(database_url: str, http: HttpPath) -> None:
    async with open_api(database_url, http=http) as api:
        await api.record(submit("g"))
        tracking = (await api.client.get("/api/v1/generations/g")).json()["tracking"]
        assert tracking["state"] == "watching"
        assert tracking["next_poll_at"] == (NOON + GRACE).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@on_both_paths
@pytest.mark.parametrize("path", ["/api/v1/generations/{}", "/api/v1/generations/{}/transitions"])
async def test_an_unknown_generation_is_not_found_at_once(database_url: str, path: str, http: HttpPath) -> None:
    async with open_api(database_url, http=http) as api:
        for unknown in UNKNOWN:
            answer = await api.client.get(path.format(unknown), params={"wait": 60})
            assert error_of(answer) == (404, "not_found"), unknown


async def test_the_history_tells_each_step_and_who_told_of_it(database_url: str) -> None:
    async with open_api(database_url) as api:
        await api.record(submit("g"), poll("g", "processing"), webhook("g", "succeeded"), submit("other"))
        answer = await api.client.get("/api/v1/generations/g/transitions")
        assert ids(answer, "number") == [1, 2, 3]
        assert answer.json()["next_cursor"] is None
        assert answer.json()["data"][2] == {
            "number": 3,
            "from": "processing",
            "to": "succeeded",
            "source": "webhook",
            "event_id": "evt_g_succeeded",
            "occurred_at": None,
            "recorded_at": "2026-05-10T12:00:00.000Z",
        }
        assert answer.json()["data"][0]["from"] is None
