"""GET /api/v1/generations/{id} and its history: Rivya's object unchanged, and what the receiver knows beside it."""

from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote

import pytest

from app.rivya.payloads import read_generation
from tests.support.api_harness import error_of, ids, open_api
from tests.support.clock import NOON
from tests.support.http_paths import HttpPath, on_both_paths
from tests.support.ledger_harness import GRACE
from tests.support.reports import poll, status_claim, submit, webhook

ODD_IDS = ["a/b", "/a//b/", "a/transitions", "a?b#c%2F", "ü 图", "図" * 300, "x" * 300]
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


@on_both_paths
async def test_a_generation_is_read_whatever_characters_its_id_has(database_url: str, http: HttpPath) -> None:
    async with open_api(database_url, http=http) as api:
        for identity in ODD_IDS:
            await api.record(webhook(identity, "succeeded", event_id=f"evt/{identity}"))
            path = f"/api/v1/generations/{quote(identity, safe='')}"
            [transition] = (await api.client.get(f"{path}/transitions")).json()["data"]
            assert transition["event_id"] == f"evt/{identity}"
            delivery = await api.client.get(f"/api/v1/deliveries/{quote(transition['event_id'], safe='')}")
            assert delivery.json()["generation_id"] == identity
            if identity.endswith("/transitions"):  # of which the path is that of a history
                assert (await api.writer.put(path)).status_code == 405
            else:
                assert (await api.client.get(path)).json()["id"] == identity
                assert (await api.writer.put(path)).json()["id"] == identity


@on_both_paths
async def test_an_integer_of_any_size_keeps_its_digits(database_url: str, http: HttpPath) -> None:
    seeds = (2**64 - 1, 2**64, -(2**63) - 1, 10**40 + 7)
    text = ",".join(map(str, seeds))
    body = b'{"id":"g","status":"succeeded","result":{"urls":[],"seeds":[%b]}}' % text.encode()
    async with open_api(database_url, http=http) as api:
        await api.record(replace(webhook("g", "succeeded"), claim=read_generation(body)))
        tracked = await api.writer.put("/api/v1/generations/g", content=b'{"metadata":{"seeds":[%b]}}' % text.encode())
        read, listed = await api.client.get("/api/v1/generations/g"), await api.client.get("/api/v1/generations")
        for answer in (tracked, read, listed):
            assert answer.text.replace(" ", "").count(f"[{text}]") == 2
