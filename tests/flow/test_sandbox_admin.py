"""The routes under /sandbox show the true state of the sandbox and change it, without a key."""

from typing import Any

import httpx
import pytest

from app.sandbox.settings import SandboxSettings
from tests.support.clock import ManualClock
from tests.support.sandbox_harness import World, world


async def admin(w: World, method: str, path: str, body: object = None) -> httpx.Response:
    return await w.client.request(method, f"/sandbox{path}", json=body, headers={"Authorization": ""})


async def state(w: World) -> dict[str, Any]:
    answer: dict[str, Any] = (await admin(w, "GET", "/state")).json()
    return answer


async def test_the_state_shows_every_poll_on_both_clocks() -> None:
    clock = ManualClock()
    async with world(clock=clock) as w:
        generation_id = await w.create()
        for _ in range(2):
            clock.advance(seconds=5)
            await w.client.get(f"/api/v1/generations/{generation_id}")
        answer = await state(w)
        assert answer["generations"][0]["polls"] == [
            {"wall": "2026-05-10T12:00:05.000Z", "monotonic": 5.0},
            {"wall": "2026-05-10T12:00:10.000Z", "monotonic": 10.0},
        ]
        assert answer["calls"]["generations.get"]["count"] == 2
        assert [call["status"] for call in answer["calls"]["generations.get"]["recent"]] == [200, 200]


async def test_the_state_shows_secrets_moves_and_deliveries() -> None:
    async with world() as w:
        endpoint = await w.register()
        rotated = (await w.client.post(f"/api/v1/webhooks/{endpoint['id']}/rotate-secret")).json()
        generation_id = await w.create()
        await w.sandbox.settle(generation_id)
        answer = await state(w)
        assert answer["endpoints"][0]["signing_secret"] == rotated["signing_secret"]
        assert answer["endpoints"][0]["past_secrets"] == [endpoint["signing_secret"]]
        assert [move["status"] for move in answer["generations"][0]["moves"]] == ["processing", "succeeded"]
        delivery = answer["deliveries"][0]
        assert (delivery["generation_id"], delivery["event_id"]) == (generation_id, w.inbox.ids[0])
        assert delivery["attempts"][0]["response_status"] == 200


async def test_faults_can_be_read_set_added_to_and_cleared() -> None:
    async with world() as w:
        set_to = {"deliveries": {"drop": True}, "api": [{"route": "credits.get", "status": 500}]}
        assert (await admin(w, "PUT", "/faults", set_to)).json()["deliveries"]["drop"] is True
        added = (await admin(w, "PATCH", "/faults", {"deliveries": {"skew": 5}, "api": [{"status": 502}]})).json()
        assert (added["deliveries"]["drop"], added["deliveries"]["skew"]) == (True, 5)
        assert [fault["status"] for fault in added["api"]] == [500, 502]
        assert (await admin(w, "GET", "/faults")).json() == added
        replaced = (await admin(w, "PUT", "/faults", {"deliveries": {"forge": True}})).json()
        assert (replaced["deliveries"]["drop"], replaced["api"]) == (False, [])
        cleared = (await admin(w, "DELETE", "/faults")).json()
        assert (cleared["deliveries"]["forge"], cleared["api"]) == (False, [])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/faults", {"deliverys": {}}),
        ("/faults", {"deliveries": {"dropp": True}}),
        ("/faults", {"deliveries": {"delay": "soon"}}),
        ("/faults", {"api": [{"rout": "x"}]}),
        ("/faults", {"api": 7}),
        ("/faults", []),
        ("/settings", {"envelope": "paper"}),
        ("/settings", {"scheme": {"family": "royal"}}),
        ("/settings", {"speedy": 1}),
        ("/settings", {"retry_delays": 5}),
    ],
)
async def test_a_change_that_can_not_be_understood_changes_nothing(path: str, body: object) -> None:
    async with world() as w:
        before = (await admin(w, "GET", path)).json()
        answer = await admin(w, "PATCH", path, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "validation_failed")
        assert (await admin(w, "GET", path)).json() == before


async def test_settings_can_be_changed_underneath() -> None:
    async with world() as w:
        await w.register()
        change = {"envelope": "generation", "retry_delays": [9], "scheme": {"signature_header": "X-Sig"}}
        answer = (await admin(w, "PATCH", "/settings", change)).json()
        assert (answer["scheme"]["signature_header"], answer["scheme"]["family"]) == ("X-Sig", "timestamped")
        await w.sandbox.settle(await w.create())
        request = w.inbox.received[0]
        assert "generation" in request.event
        assert request.headers["x-sig"].startswith("t=")


async def test_a_generation_can_be_moved_and_reported_by_hand() -> None:
    async with world() as w:
        await w.register()
        path = f"/generations/{await w.create()}"
        assert (await admin(w, "POST", f"{path}/move", {"status": "failed"})).json()["status"] == "failed"
        assert (await admin(w, "POST", f"{path}/move", {"status": "queued"})).status_code == 400
        assert (await admin(w, "POST", f"{path}/move", {"status": "lost"})).status_code == 400
        emitted = (await admin(w, "POST", f"{path}/emit", {"status": "queued", "type": "x.y"})).json()
        assert w.inbox.types == ["generation.failed", "x.y"]
        assert emitted["id"] == w.inbox.ids[-1]
        assert (await admin(w, "POST", "/generations/task_nobody/move", {"status": "failed"})).status_code == 404


async def test_time_can_be_advanced() -> None:
    async with world() as w:
        await w.create(seconds=3)
        await admin(w, "POST", "/advance", {"seconds": 3})
        assert (await state(w))["generations"][0]["status"] == "succeeded"
        assert (await admin(w, "POST", "/advance", {"seconds": "x"})).status_code == 400


async def test_an_endpoint_can_be_disabled_and_deleted_underneath() -> None:
    async with world() as w:
        path = f"/endpoints/{(await w.register())['id']}"
        assert (await admin(w, "PATCH", path, {"status": "disabled"})).json()["status"] == "disabled"
        await w.sandbox.settle(await w.create())
        assert w.inbox.received == []
        assert (await admin(w, "DELETE", path)).status_code == 204
        assert (await admin(w, "DELETE", path)).status_code == 404


async def test_keys_can_be_added_and_revoked() -> None:
    async with world() as w:
        headers = {"Authorization": "Bearer rvya_sk_two"}
        await admin(w, "PUT", "/keys/rvya_sk_two", {"scopes": ["credits:read"]})
        assert (await w.client.get("/api/v1/credits", headers=headers)).status_code == 200
        assert (await w.client.get("/api/v1/webhooks", headers=headers)).status_code == 403
        await admin(w, "PUT", "/keys/rvya_sk_two", {"revoked": True})
        revoked = await w.client.get("/api/v1/credits", headers=headers)
        assert revoked.json()["error"]["code"] == "api_key_revoked"
        assert (await admin(w, "PUT", "/keys/x", {"expires_at": "2026-01-01T00:00:00"})).status_code == 400
        assert (await admin(w, "PUT", "/keys/x", {"scopes": 7})).status_code == 400


async def test_credits_can_be_set() -> None:
    async with world(SandboxSettings()) as w:
        await admin(w, "PUT", "/credits/default", {"current_credits": 3})
        assert (await w.client.get("/api/v1/credits")).json() == {"current_credits": 3}
        assert (await admin(w, "PUT", "/credits/default", {"current_credits": "x"})).status_code == 400
