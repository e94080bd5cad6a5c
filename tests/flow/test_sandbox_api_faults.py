"""Each fault of the sandbox's API routes has its effect, and no more often than `times`."""

import asyncio
from typing import get_args

import httpx
import pytest

from app.sandbox.faults import HUGE, Alteration, ApiFault
from tests.support.sandbox_harness import World, world

BODY = {"model": "z-image"}
KEY = {"Idempotency-Key": "k"}


async def balance(w: World) -> httpx.Response:
    return await w.client.get("/api/v1/credits")


async def test_a_rate_limit_can_name_when_to_come_back_or_not() -> None:
    async with world() as w:
        w.sandbox.faults.api = [
            ApiFault("credits.get", status=429, retry_after=7, times=1),
            ApiFault("credits.get", status=429, times=1),
        ]
        with_header, without = await balance(w), await balance(w)
        assert (with_header.status_code, with_header.headers["retry-after"]) == (429, "7")
        assert (without.json()["error"]["code"], "retry-after" in without.headers) == ("rate_limited", False)
        assert (await balance(w)).status_code == 200


async def test_a_fault_befalls_the_routes_its_glob_names() -> None:
    async with world() as w:
        w.sandbox.faults.api = [ApiFault("webhooks.*", status=503)]
        assert (await w.client.get("/api/v1/webhooks")).json()["error"]["code"] == "public_api_disabled"
        assert (await w.client.get("/api/v1/webhooks")).status_code == 503
        assert (await balance(w)).status_code == 200


@pytest.mark.parametrize("status", [200, 502])
async def test_an_answer_can_be_garbage_or_empty_with_any_status(status: int) -> None:
    async with world() as w:
        w.sandbox.faults.api = [
            ApiFault(status=status, body="garbage", times=1),
            ApiFault(status=status, body="empty", times=1),
        ]
        garbage, empty = await balance(w), await balance(w)
        assert (garbage.status_code, b"\xff" in garbage.content) == (status, True)
        assert (empty.status_code, empty.content) == (status, b"")


@pytest.mark.parametrize("connection", ["reset", "hang_up"])
async def test_a_connection_can_end_before_anything_is_done(connection: str) -> None:
    async with world() as w:
        await w.client.patch("/sandbox/faults", json={"api": [{"connection": connection, "times": 1}]})
        with pytest.raises(httpx.TransportError):
            await w.client.post("/api/v1/generations", json=BODY, headers=KEY)
        assert w.sandbox.state()["charges"] == {}


async def test_a_create_can_be_charged_without_an_answer_and_found_again_by_its_key() -> None:
    async with world() as w:
        w.sandbox.faults.api = [ApiFault("generations.create", connection="hang_up", when="after", times=1)]
        with pytest.raises(httpx.RemoteProtocolError):
            await w.client.post("/api/v1/generations", json=BODY, headers=KEY)
        again = (await w.client.post("/api/v1/generations", json=BODY, headers=KEY)).json()
        assert w.sandbox.state()["charges"]["k"] == {"times": 1, "credits": 1, "generation_ids": [again["id"]]}


async def test_a_create_can_be_charged_and_answered_with_an_error() -> None:
    async with world() as w:
        w.sandbox.faults.api = [ApiFault("generations.create", status=500, when="after", times=1)]
        answer = await w.client.post("/api/v1/generations", json=BODY, headers=KEY)
        assert answer.status_code == 500
        assert w.sandbox.state()["charges"]["k"]["times"] == 1


async def test_a_hanging_call_is_answered_when_its_time_has_come() -> None:
    async with world() as w:
        w.sandbox.faults.api = [ApiFault("credits.get", hang=30, times=1)]
        waiting = asyncio.create_task(balance(w))
        while not w.sandbox.calls.counts["credits.get"]:
            await asyncio.sleep(0)
        await w.sandbox.advance(29)
        assert not waiting.done()
        await w.sandbox.advance(1)
        assert (await waiting).status_code == 200


async def test_a_caller_that_gives_up_on_a_hanging_call_leaves_nothing_behind() -> None:
    async with world() as w:
        w.sandbox.faults.api = [ApiFault("credits.get", hang=3600)]
        with pytest.raises(httpx.ReadTimeout):
            await w.client.get("/api/v1/credits", timeout=httpx.Timeout(10, read=0.02))


async def test_a_spoiled_call_is_counted_with_the_status_it_got() -> None:
    async with world() as w:
        w.sandbox.faults.api = [ApiFault(status=500, times=1), ApiFault(connection="hang_up", times=1)]
        await balance(w)
        with pytest.raises(httpx.RemoteProtocolError):
            await balance(w)
        await balance(w)
        assert [called.status for called in w.sandbox.calls.of("credits.get")] == [500, None, 200]


@pytest.mark.parametrize("how", get_args(Alteration))
async def test_a_true_answer_can_be_altered(how: Alteration) -> None:
    async with world() as w:
        truth = (await balance(w)).content
        await w.client.patch("/sandbox/faults", json={"api": [{"alter": how, "times": 1}]})
        spoiled = await balance(w)
        assert spoiled.status_code == 200
        is_other = spoiled.content != truth
        assert is_other or spoiled.headers["content-type"].startswith("text/html")
        assert (await balance(w)).content == truth
        log = w.sandbox.state()["calls"]["credits.get"]["recent"]
        assert [called["fault"] and called["fault"]["alter"] for called in log] == [None, how, None]


async def test_altered_answers_are_what_their_names_say() -> None:
    async with world() as w:
        bodies = {}
        for how in get_args(Alteration):
            w.sandbox.faults.api = [ApiFault("credits.get", alter=how, times=1)]
            bodies[how] = (await balance(w)).content
        assert b"\xff" in bodies["not_utf8"]
        assert HUGE in bodies["huge_numbers"]
        assert b'"unheard_of"' in bodies["unknown_members"]
        assert bodies["nulls"] == b'{"current_credits":null}'
        assert len(bodies["truncated"]) == len(bodies["wrong_type"]) // 2
