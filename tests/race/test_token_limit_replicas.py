"""Two real replicas and one token: as many creates go through as there is room for, also with kills in between."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from sqlalchemy import func, select, update

from app.core.database import Database
from app.sandbox.faults import ApiFault
from app.sandbox.server import ServedSandbox, serve_sandbox
from app.submission.store import submissions
from tests.support.receivers import Receiver, receiver

CREATES, ROOM, AT_ONCE = 1000, 100, 40
RATE = "100"
"""Requests to Rivya a second, besides creates."""


async def post(
    service: Receiver, headers: dict[str, str], free: asyncio.Semaphore, key: str, *, fails: bool = False
) -> httpx.Response:
    body = {"model": "z-image", "prompt": "a river", "params": {"sandbox": {"seconds": 0.1, "fail": fails}}}
    async with free:
        return await service.client.post("/api/v1/generations", json=body, headers={**headers, "Idempotency-Key": key})


@asynccontextmanager
async def two_replicas(url: str, directory: Path) -> AsyncIterator[tuple[ServedSandbox, Receiver, Receiver]]:
    async with (
        serve_sandbox() as rivya,
        receiver(rivya, url, directory, RECEIVER_POLL_RATE=RATE) as here,
        receiver(rivya, url, directory, RECEIVER_PUBLIC_URL=here.process.url, RECEIVER_POLL_RATE=RATE) as there,
    ):
        yield rivya, here, there


async def limited_token(here: Receiver, there: Receiver) -> dict[str, str]:
    """The headers of a token with a limit that both know."""
    limited = {"name": "shop", "role": "write", "credits_per_day": ROOM}
    token = (await here.client.post("/api/v1/tokens", json=limited)).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    while (await there.client.get("/api/v1/tokens/me", headers=headers)).status_code != 200:
        pass
    return headers


async def spent(service: Receiver, headers: dict[str, str]) -> tuple[float, float]:
    day = (await service.client.get("/api/v1/tokens/me", headers=headers)).json()["credits"]["day"]
    return day["reserved"], day["spent"]


async def test_of_a_thousand_creates_on_two_replicas_exactly_as_many_go_through_as_there_is_room_for(
    postgres_url: str, tmp_path: Path
) -> None:
    async with two_replicas(postgres_url, tmp_path) as (rivya, here, there):
        headers = await limited_token(here, there)
        free = {here.process.url: asyncio.Semaphore(AT_ONCE), there.process.url: asyncio.Semaphore(AT_ONCE)}
        tasks = [
            post(service, headers, free[service.process.url], f"order-{number}")
            for number in range(CREATES // 2)
            for service in (here, there)
        ]
        # The two replicas get every key twice, as from callers who try again elsewhere.
        answers = await asyncio.gather(*tasks)
        accepted = {answer.json()["id"] for answer in answers if answer.status_code == 200}
        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) <= {200, 402}
        assert len(accepted) == ROOM
        charges = rivya.sandbox.accounts.charges_by_key()
        assert len(charges) == ROOM
        for generation in accepted:
            await here.settled(generation)
        assert await settled_spending(there, headers) == ROOM
        assert await spent(here, headers) == (0, ROOM)


KILLS, BETWEEN_KILLS = 4, 25
"""Kills, and answers between two of them."""
FAILING, OF = 13, 25
"""So many creates fail that those which succeed leave some of the limit, however few of them the kills cut off."""


async def resolve_all(database: Database) -> None:
    """Have the attempts of killed processes repeated now, not when their leases end; return when none is open."""
    is_open = submissions.c.next_attempt_at.is_not(None)
    async with database.transaction() as connection:
        await connection.execute(update(submissions).where(is_open).values(next_attempt_at=func.now()))
    async with asyncio.timeout(60):
        while True:
            async with database.read() as connection:
                count = select(func.count()).select_from(submissions).where(is_open)
                if not (await connection.execute(count)).scalar_one():
                    return


async def settled_spending(service: Receiver, headers: dict[str, str]) -> float:
    """What is spent when nothing is reserved any more."""
    async with asyncio.timeout(60):
        while (state := await spent(service, headers))[0]:
            assert sum(state) <= ROOM
    return state[1]


async def test_kills_between_creates_lead_neither_above_the_limit_nor_leave_any_of_it_unused(
    postgres_url: str, tmp_path: Path
) -> None:
    async with two_replicas(postgres_url, tmp_path) as (rivya, here, there):
        headers = await limited_token(here, there)
        rivya.sandbox.faults.api = [ApiFault(route="generations.create", hang=0.05)]  # kills find some under way
        free, answers, answered = asyncio.Semaphore(20), Counter[object](), asyncio.Condition()

        async def attempt(number: int) -> None:
            service = (here, there)[number % 2]
            try:
                answer = await post(service, headers, free, f"order-{number}", fails=number % OF < FAILING)
                result: object = answer.status_code
            except httpx.TransportError:
                result = "cut"
            async with answered:
                answers[result] += 1
                answered.notify_all()

        tasks = [asyncio.create_task(attempt(number)) for number in range(2 * ROOM)]
        for kill in range(KILLS):
            async with answered:
                await answered.wait_for(lambda: answers.total() >= (kill + 1) * BETWEEN_KILLS)  # noqa: B023
            process = (here, there)[kill % 2].process
            process.kill()
            await asyncio.to_thread(process.start)
        await asyncio.gather(*tasks)
        assert answers["cut"]
        assert set(answers) <= {200, 402, 503, "cut"}
        rivya.sandbox.faults.api = []
        database = Database(postgres_url)
        try:
            await here.ready()
            await there.ready()
            await resolve_all(database)
            before = await settled_spending(here, headers)
            assert 0 < before < ROOM
            more = [await post(there, headers, free, f"more-{number}") for number in range(int(ROOM - before) + 1)]
            assert [answer.status_code for answer in more] == [200] * int(ROOM - before) + [402]
            assert await settled_spending(here, headers) == ROOM
        finally:
            await database.dispose()
        charged = rivya.sandbox.accounts.charges_by_key()
        assert sum(charge["credits"] for charge in charged.values()) == ROOM
