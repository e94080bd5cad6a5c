"""Models are kept for a while and asked for once however many want them; credits are always asked for."""

import asyncio
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from app.gateway.models_cache import CachedModels
from app.rivya.errors import RivyaRateLimited, RivyaUnavailable
from app.sandbox.faults import ApiFault
from app.sandbox.server import serve_sandbox
from app.sandbox.state import Sandbox
from tests.support.gateway_harness import GatewayHarness, open_gateway
from tests.support.receivers import receiver
from tests.support.scripted_provider import answering, scripted

MODELS = "/api/v1/models"


def asked(sandbox: Sandbox) -> int:
    return sandbox.calls.counts["models.list"]


def failing(sandbox: Sandbox, status: int = 500) -> None:
    sandbox.faults.api = [ApiFault("models.list", status=status)]


async def ids(room: GatewayHarness) -> list[str]:
    answer = await room.client.get(MODELS)
    assert answer.status_code == 200, answer.text
    return [model["id"] for model in answer.json()["data"]]


def gauge(name: str) -> float:
    value = REGISTRY.get_sample_value(name)
    assert value is not None
    return value


async def test_a_list_is_kept_for_its_time_and_tells_its_age() -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url, ttl=timedelta(seconds=60)) as room:
        ages = []
        for _ in range(4):
            ages.append((await room.client.get(MODELS)).headers["age"])
            room.clock.advance(seconds=25)
        assert ages == ["0", "25", "50", "0"]
        assert asked(rivya.sandbox) == 2


async def test_however_many_ask_at_once_rivya_is_asked_once() -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        answers = await asyncio.gather(*(room.client.get(MODELS) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert asked(rivya.sandbox) == 1


async def test_a_caller_that_leaves_does_not_end_the_refresh_that_others_wait_for() -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        rivya.sandbox.faults.api = [ApiFault("models.list", hang=0.2, times=1)]
        first, second = (asyncio.ensure_future(room.gateway.models_cache.best()) for _ in range(2))
        while not asked(rivya.sandbox):
            await asyncio.sleep(0)
        first.cancel()
        assert isinstance(await second, CachedModels)
        assert asked(rivya.sandbox) == 1


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_while_rivya_fails_the_last_good_list_is_served_with_its_age(status: int) -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url, ttl=timedelta(seconds=60)) as room:
        good = (await room.client.get(MODELS)).json()
        failing(rivya.sandbox, status)
        room.clock.advance(seconds=500)
        answer = await room.client.get(MODELS)
        assert (answer.status_code, answer.headers["age"], answer.json()) == (200, "500", good)
        tries = asked(rivya.sandbox)
        await room.client.get(MODELS)
        assert asked(rivya.sandbox) == tries
        rivya.sandbox.faults.clear()
        room.clock.advance(seconds=11)
        assert (await room.client.get(MODELS)).headers["age"] == "0"


async def test_an_answer_that_is_no_list_does_not_replace_one() -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url, ttl=timedelta(seconds=60)) as room:
        good = await ids(room)
        rivya.sandbox.faults.api = [ApiFault("models.list", status=200, body="garbage")]
        room.clock.advance(seconds=61)
        assert await ids(room) == good


async def test_without_any_list_the_answer_is_rivyas_own() -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        failing(rivya.sandbox, 403)
        answer = await room.client.get(MODELS)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "api_scope_denied")
        assert (await room.client.get(f"{MODELS}/z-image")).status_code == 403


async def test_without_any_list_and_without_rivya_that_is_said() -> None:
    async with open_gateway("http://127.0.0.1:1") as room:
        for path in (MODELS, f"{MODELS}/z-image"):
            answer = await room.client.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "rivya_unreachable")


async def test_one_model_is_the_entry_of_the_list_unchanged() -> None:
    entry = b'{"id":"a/b c","category":"image","price":1.0,"new":{"x":[null]}}'
    async with (
        scripted(answering(b'{"object":"list","data":[1,%b]}' % entry, Content_Type="application/json")) as rivya,
        open_gateway(rivya.url) as room,
    ):
        for path in ("a/b%20c", "a%2Fb%20c"):
            answer = await room.client.get(f"{MODELS}/{path}")
            assert (answer.status_code, answer.content) == (200, entry + b"\n")
            assert answer.headers["content-type"] == "application/json"
        unknown = await room.client.get(f"{MODELS}/other")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
        assert len(rivya.heard) == 1


async def test_a_list_asked_for_with_a_query_is_rivyas_to_answer() -> None:
    async with scripted(answering(b"[]")) as rivya, open_gateway(rivya.url) as room:
        for _ in range(2):
            assert (await room.client.get(f"{MODELS}?category=image")).content == b"[]"
        assert [heard.target for heard in rivya.heard] == [f"{MODELS}?category=image"] * 2


async def test_the_categories_come_from_the_same_list() -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url, ttl=timedelta(hours=1)) as room:
        await room.client.get(MODELS)
        categories = await room.gateway.models_cache.categories()
        assert (categories["z-image"], categories["sandbox-video"]) == ("image", "video")
        assert asked(rivya.sandbox) == 1
        room.clock.advance(seconds=61)
        await room.gateway.models_cache.categories()
        assert (await room.client.get(MODELS)).headers["age"] == "0"
        assert asked(rivya.sandbox) == 2


async def test_categories_that_cannot_be_read_anew_are_an_error_not_an_old_list() -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        failing(rivya.sandbox, 429)
        with pytest.raises(RivyaRateLimited):
            await room.gateway.models_cache.categories()
    async with open_gateway("http://127.0.0.1:1") as room:
        with pytest.raises(RivyaUnavailable):
            await room.gateway.models_cache.categories()


async def test_credits_are_never_kept_and_their_last_value_and_age_are_metrics() -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        assert math.isnan(gauge("receiver_rivya_credits"))
        assert math.isnan(gauge("receiver_rivya_credits_age_seconds"))
        for left in (70, 30):
            rivya.sandbox.accounts.set_balance("default", left)
            assert (await credits(room)).json() == {"current_credits": left}
        room.clock.advance(seconds=12)
        assert (gauge("receiver_rivya_credits"), gauge("receiver_rivya_credits_age_seconds")) == (30, 12)


@pytest.mark.parametrize("spoiled", [{"status": 403}, {"status": 200, "body": "garbage"}])
async def test_an_answer_without_a_balance_is_passed_on_and_leaves_the_metrics_alone(spoiled: dict[str, Any]) -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        rivya.sandbox.accounts.set_balance("default", 5)
        await credits(room)
        room.clock.advance(seconds=3)
        rivya.sandbox.faults.api = [ApiFault("credits.get", **spoiled)]
        assert (await credits(room)).status_code == spoiled["status"]
        assert (gauge("receiver_rivya_credits"), gauge("receiver_rivya_credits_age_seconds")) == (5, 3)


async def credits(room: GatewayHarness) -> httpx.Response:  # noqa: A001 - Rivya's own word
    return await room.client.get("/api/v1/credits")


@pytest.mark.parametrize("path", [MODELS, "/api/v1/credits"])
async def test_an_answer_that_breaks_off_or_has_no_end_is_said_to_be_unreadable(path: str) -> None:
    async def short(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    async with (
        scripted(short, answering(bytes(5 * 1024 * 1024))) as rivya,
        open_gateway(rivya.url) as room,
    ):
        for _ in range(2):
            answer = await room.client.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "rivya_unreadable")


async def test_the_poller_and_the_callers_of_a_process_share_one_list(sqlite_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya, receiver(rivya, sqlite_url, tmp_path) as service:
        while not asked(rivya.sandbox):  # the poller's turn
            await service.client.get("/livez")
        assert "age" in (await service.client.get(MODELS)).headers
        assert asked(rivya.sandbox) == 1
