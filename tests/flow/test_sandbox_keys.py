"""The sandbox accepts the keys it knows, for what their scopes allow, and separates accounts."""

from datetime import timedelta

import httpx
import pytest

from app.sandbox.accounts import SCOPES, Key
from tests.support.clock import NOON, ManualClock
from tests.support.sandbox_harness import World, world

CALLS = {
    "credits:read": ("GET", "/api/v1/credits"),
    "generations:create": ("POST", "/api/v1/generations"),
    "generations:read": ("GET", "/api/v1/generations/task_x"),
    "webhooks:manage": ("GET", "/api/v1/webhooks"),
}


async def code_for(w: World, authorization: str, *, call: tuple[str, str] = CALLS["credits:read"]) -> tuple[int, str]:
    answer = await w.client.request(*call, headers={"Authorization": authorization})
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic eDp5", "rvya_sk_sandbox"])
async def test_without_a_bearer_key_the_key_is_missing(authorization: str) -> None:
    async with world() as w:
        assert await code_for(w, authorization) == (401, "api_key_missing")


async def test_an_unknown_key_is_invalid() -> None:
    async with world() as w:
        assert await code_for(w, "Bearer rvya_sk_other") == (401, "api_key_invalid")


async def test_a_key_can_be_revoked_underneath() -> None:
    async with world() as w:
        assert (await w.client.get("/api/v1/credits")).status_code == 200
        w.sandbox.keys["rvya_sk_sandbox"].revoked = True
        assert await code_for(w, "Bearer rvya_sk_sandbox") == (401, "api_key_revoked")


async def test_a_key_expires() -> None:
    clock = ManualClock()
    async with world(clock=clock) as w:
        w.sandbox.keys.add(Key("rvya_sk_short", expires_at=NOON + timedelta(seconds=10)))
        headers = {"Authorization": "Bearer rvya_sk_short"}
        assert (await w.client.get("/api/v1/credits", headers=headers)).status_code == 200
        clock.advance(seconds=10)
        assert await code_for(w, "Bearer rvya_sk_short") == (401, "api_key_expired")


@pytest.mark.parametrize("scope", list(CALLS))
async def test_a_key_without_the_scope_is_denied(scope: str) -> None:
    async with world() as w:
        rest = tuple(other for other in SCOPES if other != scope)
        w.sandbox.keys.add(Key("rvya_sk_rest", scopes=rest))
        answer = await w.client.request(*CALLS[scope], headers={"Authorization": "Bearer rvya_sk_rest"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "api_scope_denied")
        assert scope in answer.json()["error"]["message"]


async def test_another_account_sees_nothing_of_this_one() -> None:
    async with world() as w:
        w.sandbox.keys.add(Key("rvya_sk_theirs", account="theirs"))
        generation_id, endpoint = await w.create(), await w.register()
        async with httpx.AsyncClient(
            base_url=w.client.base_url, headers={"Authorization": "Bearer rvya_sk_theirs"}, trust_env=False
        ) as theirs:
            assert (await theirs.get(f"/api/v1/generations/{generation_id}")).status_code == 404
            assert (await theirs.get(f"/api/v1/webhooks/{endpoint['id']}")).status_code == 404
            assert (await theirs.get("/api/v1/webhooks")).json()["data"] == []
            body = {"model": "z-image"}
            theirs_id = (await theirs.post("/api/v1/generations", json=body)).json()["id"]
        await w.sandbox.settle(theirs_id)
        assert w.inbox.received == []
