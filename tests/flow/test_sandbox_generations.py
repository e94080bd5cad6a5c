"""The sandbox's models, credits and generations have the documented shapes, and cost once."""

from typing import Any

import httpx
import pytest

from app.sandbox.settings import SandboxSettings
from tests.support.sandbox_harness import World, world

BODY = {"model": "z-image", "prompt": "a fox", "client_request_id": "mine"}


async def post(w: World, body: object, **headers: str) -> httpx.Response:
    return await w.client.post("/api/v1/generations", json=body, headers=headers)


async def credits_left(w: World) -> int:
    left: int = (await w.client.get("/api/v1/credits")).json()["current_credits"]
    return left


def refusal(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert set(error) == {"code", "message", "requestId"}
    assert error["requestId"].startswith("req_")
    return response.status_code, error["code"]


async def test_the_catalogue_is_public_and_has_every_category() -> None:
    async with world() as w:
        listed = (await w.client.get("/api/v1/models", headers={"Authorization": ""})).json()
        assert listed["object"] == "list"
        assert {model["category"] for model in listed["data"]} == {"image", "video", "audio", "chat"}
        assert listed["data"][0] == {
            "id": "z-image",
            "display_name": "Z-Image",
            "category": "image",
            "runtime": "async_task",
            "base_credits": 1,
            "billing_type": "FIXED",
            "supported_modes": ["text-to-image"],
            "max_prompt_length": 1000,
            "reference_media": None,
            "params": [],
            "api_status": "available",
            "api_input_status": "available_text",
            "supported_api_inputs": ["text"],
            "requires_files_api": False,
            "requires_upload_for_modes": [],
            "url_input_supported": False,
            "file_kinds": [],
            "chat_capabilities": None,
            "notices": [],
        }


async def test_a_new_generation_is_queued_and_says_so_when_asked() -> None:
    async with world() as w:
        created = (await post(w, BODY)).json()
        assert list(created) == [
            "id",
            "status",
            "model",
            "reserved_credits",
            "final_credits",
            "created_at",
            "updated_at",
            "result",
            "error",
        ]
        assert (created["status"], created["reserved_credits"], created["final_credits"]) == ("queued", 1, None)
        assert (await w.client.get(f"/api/v1/generations/{created['id']}")).json() == created


async def test_a_succeeded_generation_has_a_result_and_keeps_its_price() -> None:
    async with world() as w:
        before = await credits_left(w)
        generation_id = await w.create()
        await w.sandbox.settle(generation_id)
        generation = (await w.client.get(f"/api/v1/generations/{generation_id}")).json()
        url = f"https://media.example/{generation_id}.png"
        assert (generation["status"], generation["final_credits"], generation["error"]) == ("succeeded", 1, None)
        assert generation["result"] == {"primary_url": url, "urls": [url]}
        assert await credits_left(w) == before - 1


async def test_a_failed_generation_has_an_error_and_is_refunded() -> None:
    async with world() as w:
        before = await credits_left(w)
        generation_id = await w.create()
        assert await credits_left(w) == before - 1
        await w.sandbox.settle(generation_id, "failed")
        generation = (await w.client.get(f"/api/v1/generations/{generation_id}")).json()
        assert (generation["status"], generation["final_credits"], generation["result"]) == ("failed", 0, None)
        assert generation["error"]["code"] == "generation_failed"
        assert await credits_left(w) == before


async def test_the_same_key_and_body_is_the_same_generation_charged_once() -> None:
    async with world() as w:
        before = await credits_left(w)
        first = await post(w, BODY, **{"Idempotency-Key": "k1"})
        await w.sandbox.settle(first.json()["id"])
        second = await post(w, BODY, **{"Idempotency-Key": "k1"})
        assert (second.status_code, second.content) == (first.status_code, first.content)
        assert await credits_left(w) == before - 1
        charged = {"times": 1, "credits": 1, "generation_ids": [first.json()["id"]]}
        assert w.sandbox.state()["charges"] == {"k1": charged}


async def test_the_same_key_with_another_body_is_a_conflict_and_costs_nothing() -> None:
    async with world() as w:
        await post(w, BODY, **{"Idempotency-Key": "k1"})
        answer = await post(w, {**BODY, "prompt": "a cat"}, **{"Idempotency-Key": "k1"})
        assert refusal(answer) == (409, "idempotency_conflict")
        assert w.sandbox.state()["charges"]["k1"]["times"] == 1


async def test_without_a_key_every_create_is_another_generation() -> None:
    async with world() as w:
        assert await w.create() != await w.create()
        assert w.sandbox.state()["charges"][""]["times"] == 2


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model": ""},
        {"model": "no-such-model"},
        {"model": "gpt-5-2-chat"},
        {"model": "sandbox-video-next"},
        {"model": 7},
        {"model": "z-image", "prompt": 7},
        {"model": "z-image", "params": []},
        {"model": "z-image", "params": "x"},
        {"model": "z-image", "params": {"sandbox": {"callback": "no-such-fault"}}},
        [],
    ],
)
async def test_a_body_that_can_not_be_used_is_refused_and_leaves_its_key_unused(body: object) -> None:
    async with world() as w:
        assert refusal(await post(w, body, **{"Idempotency-Key": "k"})) == (400, "validation_failed")
        assert (await post(w, BODY, **{"Idempotency-Key": "k"})).status_code == 200


async def test_bytes_that_are_no_json_are_refused() -> None:
    async with world() as w:
        answer = await w.client.post("/api/v1/generations", content=b"\xff{")
        assert refusal(answer) == (400, "validation_failed")


async def test_a_create_without_credits_is_refused_and_leaves_no_generation() -> None:
    async with world(SandboxSettings(insufficient_credits_status=403)) as w:
        w.sandbox.accounts.set_balance("default", 0)
        assert refusal(await post(w, BODY)) == (403, "insufficient_credits")
        assert w.sandbox.state()["generations"] == []


async def test_an_unknown_generation_is_not_found() -> None:
    async with world() as w:
        assert refusal(await w.client.get("/api/v1/generations/task_nobody")) == (404, "not_found")


async def test_an_unknown_route_is_refused_in_the_same_shape() -> None:
    async with world() as w:
        assert refusal(await w.client.get("/api/v1/nothing")) == (404, "not_found")
        assert refusal(await w.client.delete("/api/v1/models"))[0] == 405


async def test_what_is_not_documented_about_create_can_be_switched() -> None:
    settings = SandboxSettings(create_status=202, short_create=True, echo_client_request_id=True)
    async with world(settings) as w:
        answer = await post(w, BODY)
        created: dict[str, Any] = answer.json()
        assert answer.status_code == 202
        assert created["client_request_id"] == "mine"
        assert not {"final_credits", "created_at", "updated_at"} & set(created)


async def test_a_generation_never_moves_backwards() -> None:
    async with world() as w:
        generation_id = await w.create()
        await w.sandbox.settle(generation_id)
        with pytest.raises(ValueError, match="can't become failed"):
            await w.sandbox.move(generation_id, "failed")


async def test_asked_for_seconds_pass_when_time_is_advanced() -> None:
    async with world() as w:
        generation_id = await w.create(seconds=10, fail=True)
        path = f"/api/v1/generations/{generation_id}"
        await w.sandbox.advance(9)
        assert (await w.client.get(path)).json()["status"] == "processing"
        await w.sandbox.advance(1)
        assert (await w.client.get(path)).json()["status"] == "failed"


async def test_in_manual_mode_a_generation_without_seconds_stays_queued() -> None:
    async with world() as w:
        generation_id = await w.create()
        await w.sandbox.advance(86_400)
        assert w.sandbox.generations.by_id[generation_id].status == "queued"
