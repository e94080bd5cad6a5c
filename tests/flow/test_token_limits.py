"""Limits of tokens: credits are reserved before Rivya is called, corrected by what Rivya says, and never exceeded."""

import asyncio
import re
from dataclasses import replace
from typing import Any

import httpx
import pytest

from app.core.auth import Caller, Role, TokenLimits
from app.operations.alarms import Alarm
from app.operations.retention import Pruning
from app.sandbox.faults import ApiFault, StreamFault
from app.sandbox.settings import Dialect
from tests.support.ports import free_port
from tests.support.reports import status_claim, webhook
from tests.support.service_harness import ServiceHarness, open_service
from tests.support.tokens import call, create

GENERATIONS = "/api/v1/generations"
BODY = {"model": "z-image", "prompt": "a river"}
TURN = {"model": "gpt-5-2-chat", "message": "hello"}
CALLER = Caller("shop", Role.WRITE, TokenLimits(credits_per_day=50))


async def post(room: ServiceHarness, token: str, *, key: str | None = None, **members: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", **({} if key is None else {"Idempotency-Key": key})}
    return await room.client.post(GENERATIONS, json={**BODY, **members}, headers=headers)


async def credit_state(room: ServiceHarness, token: str, period: str = "day") -> tuple[float, float, float]:
    """Reserved, spent and left."""
    about = (await call(room, "GET", "/api/v1/tokens/me", token)).json()["credits"][period]
    return about["reserved"], about["spent"], about["left"]


def calls(room: ServiceHarness) -> int:
    return room.sandbox.calls.counts["generations.create"]


async def test_a_create_beyond_the_limit_is_402_and_never_reaches_rivya(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, credits_per_day=2)
        assert [(await post(room, token)).status_code for _ in range(2)] == [200, 200]
        assert await credit_state(room, token) == (2, 0, 0)
        refused = await post(room, token, key="order-3")
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (402, "token_limit_reached")
        assert "0 of 2 credits left for 2026-05-10" in error["message"]
        assert "renew at 2026-05-11T00:00:00Z" in error["message"]
        assert calls(room) == 2
        room.pass_time(days=1)
        await room.service.tokens.run_once()
        assert (await post(room, token, key="order-3")).status_code == 200


async def test_a_month_has_a_limit_of_its_own(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, credits_per_month=2, credits_per_day=1)
        assert (await post(room, token)).status_code == 200
        assert "for 2026-05-10" in (await post(room, token)).json()["error"]["message"]
        room.pass_time(days=1)
        await room.service.tokens.run_once()
        assert (await post(room, token)).status_code == 200
        room.pass_time(days=1)
        await room.service.tokens.run_once()
        refused = (await post(room, token)).json()["error"]["message"]
        assert "for 2026-05," in refused
        assert "renew at 2026-06-01T00:00:00Z" in refused
        assert await credit_state(room, token, "month") == (2, 0, 0)
        assert (await call(room, "GET", "/api/v1/tokens/me", token)).json()["credits"]["day"]["left"] == 1


@pytest.mark.parametrize(
    ("status", "final", "spent"),
    [("succeeded", 1, 1), ("succeeded", 0.25, 0.25), ("failed", None, 0), ("failed", 0, 0)],
)
async def test_what_is_settled_counts_as_rivya_charged_it(
    database_url: str, status: str, final: float | None, spent: float
) -> None:
    async with open_service(database_url) as room:
        token = await create(room, credits_per_day=5)
        generation = (await post(room, token)).json()["id"]
        await room.service.spending.run_once()
        assert await credit_state(room, token) == (1, 0, 4)
        claim = replace(status_claim(generation, status), final_credits=final)
        await room.record(replace(webhook(generation, status, at=room.clock.now()), claim=claim))
        await room.service.spending.run_once()
        assert await credit_state(room, token) == (0, spent, 5 - spent)
        await room.service.spending.run_once()
        assert await credit_state(room, token) == (0, spent, 5 - spent)


async def test_a_price_that_rivya_never_tells_counts_as_it_was_reserved_after_an_hour(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, credits_per_day=5)
        generation = (await post(room, token)).json()["id"]
        await room.record(webhook(generation, "succeeded", at=room.clock.now()))
        await room.service.spending.run_once()
        assert await credit_state(room, token) == (1, 0, 4)
        room.pass_time(hours=1, seconds=1)
        await room.service.tokens.run_once()
        await room.service.spending.run_once()
        assert await credit_state(room, token) == (0, 1, 4)


@pytest.mark.parametrize("status", [400, 429])
async def test_a_refused_create_gives_its_credits_back(database_url: str, status: int) -> None:
    async with open_service(database_url) as room:
        token = await create(room, credits_per_day=1)
        room.sandbox.faults.api = [ApiFault(route="generations.create", status=status, times=1)]
        assert (await post(room, token, key="order-1")).status_code == status
        assert await credit_state(room, token) == (0, 0, 1)
        again = await post(room, token, key="order-1" if status == 429 else "order-2")
        assert again.status_code == 200
        assert await credit_state(room, token) == (1, 0, 0)


async def test_an_unknown_outcome_keeps_its_credits_until_it_is_resolved(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, credits_per_day=1)
        room.sandbox.faults.api = [ApiFault(route="generations.create", when="after", connection="hang_up", times=1)]
        assert (await post(room, token, key="order-1")).status_code == 504
        assert (await post(room, token, key="order-2")).status_code == 402
        room.pass_time(minutes=2)
        await room.service.tokens.run_once()
        await room.service.retrier.run_once()
        assert await credit_state(room, token) == (1, 0, 0)
        generation = (await post(room, token, key="order-1")).json()["id"]
        await room.record(webhook(generation, "failed", at=room.clock.now()))
        await room.service.spending.run_once()
        assert await credit_state(room, token) == (0, 0, 1)


async def test_a_repeated_create_is_counted_once(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, credits_per_day=1, rate=1)
        assert [(await post(room, token, key="order-1")).status_code for _ in range(3)] == [200] * 3
        assert await credit_state(room, token) == (1, 0, 0)


async def test_a_model_of_unknown_price_reserves_the_default(database_url: str) -> None:
    async with open_service(database_url, RECEIVER_DEFAULT_CREDITS="3") as room:
        token = await create(room, credits_per_day=2)
        refused = await post(room, token, model="made-up")
        assert (refused.status_code, refused.json()["error"]["code"]) == (402, "token_limit_reached")
        assert "this needs 3" in refused.json()["error"]["message"]


async def test_a_generation_that_is_forgotten_leaves_no_reservation(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, credits_per_day=1)
        generation = (await post(room, token)).json()["id"]
        await Pruning(room.service.database).generations([generation], now=room.clock.now())
        await room.service.spending.run_once()
        assert await credit_state(room, token) == (0, 1, 0)


async def test_a_model_that_is_not_allowed_is_403(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, models=["seedance"])
        refused = await post(room, token)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
        assert calls(room) == 0


async def test_more_calls_than_the_rate_are_429_until_the_next_minute(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, rate=2)
        room.pass_time(seconds=20)
        await room.service.tokens.run_once()
        assert [(await post(room, token)).status_code for _ in range(2)] == [200, 200]
        refused = await post(room, token, key="order-3")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
        assert refused.headers["Retry-After"] == "40"
        assert (await call(room, "GET", GENERATIONS, token)).status_code == 200
        room.pass_time(seconds=40)
        await room.service.tokens.run_once()
        assert (await post(room, token, key="order-3")).status_code == 200


async def test_of_many_at_once_as_many_go_through_as_there_is_room_for(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, credits_per_day=10)
        answers = await asyncio.gather(*(post(room, token) for _ in range(40)))
        codes = [answer.status_code for answer in answers]
        assert (codes.count(200), codes.count(402)) == (10, 30)
        assert calls(room) == 10
        assert await credit_state(room, token) == (10, 0, 0)


CHAT = "/api/v1/chat/completions"


async def turn(room: ServiceHarness, token: str, *, key: str | None = None, **members: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", **({} if key is None else {"Idempotency-Key": key})}
    return await room.client.post(CHAT, json={**TURN, **members}, headers=headers)


async def test_a_chat_turn_counts_by_the_credits_in_its_answer(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, credits_per_day=5, models=["gpt-5-2-chat"])
        answer = await turn(room, token)
        spent = answer.json()["credits"]["final"]
        assert await credit_state(room, token) == (0, spent, 5 - spent)
        assert (await turn(room, token, model="other")).json()["error"]["code"] == "model_not_allowed"


async def test_a_chat_turn_beyond_the_limit_is_402_and_never_reaches_rivya(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, credits_per_day=1)
        while (answer := await turn(room, token)).status_code == 200:
            pass
        assert (answer.status_code, answer.json()["error"]["code"]) == (402, "token_limit_reached")
        before = room.sandbox.calls.counts["chat.complete"]
        assert (await turn(room, token)).status_code == 402
        assert room.sandbox.calls.counts["chat.complete"] == before


async def test_a_repeated_turn_costs_once_and_a_refused_one_nothing(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, credits_per_day=50)
        refused = await turn(room, token, model="z-image")
        assert refused.status_code == 400
        assert await credit_state(room, token) == (0, 0, 50)
        first = await turn(room, token, key="turn-1")
        spent = first.json()["credits"]["final"]
        assert (await turn(room, token, key="turn-1")).json()["credits"]["final"] == spent
        assert (await turn(room, token, key="turn-1", message="another")).status_code == 409
        assert await credit_state(room, token) == (0, spent, 50 - spent)


async def stream(room: ServiceHarness, token: str, *, key: str | None = None) -> str:
    room.sandbox.settings.stream_pause = 0
    headers = {"Authorization": f"Bearer {token}", **({} if key is None else {"Idempotency-Key": key})}
    return (await room.client.post(f"{CHAT}/stream", json=TURN, headers=headers)).text


@pytest.mark.parametrize("dialect", ["named", "chunks", "crlf"])
async def test_a_stream_counts_by_the_credits_that_it_tells(database_url: str, dialect: Dialect) -> None:
    async with open_service(database_url) as room:
        room.sandbox.settings.stream_dialect = dialect
        token = await create(room, credits_per_day=50)
        text = await stream(room, token, key="turn-1")
        [price] = map(float, re.findall(r'"final": ?([0-9.]+)', text))
        assert await credit_state(room, token) == (0, price, 50 - price)
        await stream(room, token, key="turn-1")
        assert await credit_state(room, token) == (0, price, 50 - price)


async def test_a_stream_that_breaks_before_it_tells_its_credits_counts_as_it_was_reserved(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, credits_per_day=50)
        room.sandbox.faults.stream = StreamFault(after=1, connection="reset")
        with pytest.raises(AssertionError):  # of httpx: the answer has no end
            await stream(room, token)
        price = await room.service.spending.price(CALLER, TURN["model"])
        assert await credit_state(room, token) == (0, price, 50 - price)


async def test_a_turn_that_never_reached_rivya_costs_nothing(database_url: str) -> None:
    async with open_service(database_url, RIVYA_BASE_URL=f"http://127.0.0.1:{free_port()}") as room:
        token = await create(room, credits_per_day=50)
        assert "rivya_unreachable" in await stream(room, token)
        assert await credit_state(room, token) == (0, 0, 50)


async def test_a_turn_of_a_killed_process_counts_as_it_was_reserved_after_a_day(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, credits_per_day=50, credits_per_month=50)
        await room.service.spending.begin_turn(CALLER, "turn_1", TURN["model"])
        price = await room.service.spending.price(CALLER, TURN["model"])
        assert await credit_state(room, token) == (price, 0, 50 - price)
        room.pass_time(hours=27)
        await room.service.tokens.run_once()
        await room.service.spending.run_once()
        assert await credit_state(room, token, "month") == (0, price, 50 - price)


async def test_a_limit_that_is_set_later_counts_from_then_and_a_lowered_one_holds(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room)
        assert (await post(room, token)).status_code == 200
        await call(room, "PATCH", "/api/v1/tokens/shop", json={"credits_per_day": 2})
        assert await credit_state(room, token) == (0, 0, 2)
        assert (await post(room, token)).status_code == 200
        await call(room, "PATCH", "/api/v1/tokens/shop", json={"credits_per_day": 0})
        assert (await post(room, token)).status_code == 402
        assert await credit_state(room, token) == (1, 0, 0)
        await call(room, "PATCH", "/api/v1/tokens/shop", json={"credits_per_day": None})
        assert (await post(room, token)).status_code == 200


async def test_retention_removes_what_was_spent_in_earlier_months_only(database_url: str) -> None:
    async with open_service(database_url, RECEIVER_RETENTION_DAYS="1") as room:
        token = await create(room, credits_per_month=5)
        await post(room, token)
        room.pass_time(days=25)
        await room.service.tokens.run_once()
        await post(room, token)
        assert await Pruning(room.service.database).spending(room.clock.now()) == 2
        await room.service.retention.run_once()
        assert await credit_state(room, token, "month") == (1, 0, 4)


async def test_a_token_near_its_limit_raises_an_alarm(database_url: str) -> None:
    async with open_service(database_url) as room:
        token = await create(room, credits_per_day=10)
        for _ in range(9):
            await post(room, token)
        assert Alarm.TOKEN_LIMITS not in await room.raised()
        await post(room, token)
        assert Alarm.TOKEN_LIMITS in await room.raised()
