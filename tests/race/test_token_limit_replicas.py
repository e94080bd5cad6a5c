"""Two real replicas and one token: of many creates at once, exactly as many go through as there is room for."""

import asyncio
from collections import Counter
from pathlib import Path

import httpx

from app.sandbox.server import serve_sandbox
from tests.support.receivers import Receiver, receiver

CREATES, ROOM, AT_ONCE = 1000, 100, 40


async def post(service: Receiver, headers: dict[str, str], free: asyncio.Semaphore, key: str) -> httpx.Response:
    body = {"model": "z-image", "prompt": "a river", "params": {"sandbox": {"seconds": 0.1}}}
    async with free:
        return await service.client.post("/api/v1/generations", json=body, headers={**headers, "Idempotency-Key": key})


async def spent(service: Receiver, headers: dict[str, str]) -> tuple[float, float]:
    day = (await service.client.get("/api/v1/tokens/me", headers=headers)).json()["credits"]["day"]
    return day["reserved"], day["spent"]


async def test_of_a_thousand_creates_on_two_replicas_exactly_as_many_go_through_as_there_is_room_for(
    postgres_url: str, tmp_path: Path
) -> None:
    async with (
        serve_sandbox() as rivya,
        receiver(rivya, postgres_url, tmp_path) as here,
        receiver(rivya, postgres_url, tmp_path, RECEIVER_PUBLIC_URL=here.process.url) as there,
    ):
        limited = {"name": "shop", "role": "write", "credits_per_day": ROOM}
        token = (await here.client.post("/api/v1/tokens", json=limited)).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        while (await there.client.get("/api/v1/tokens/me", headers=headers)).status_code != 200:
            pass
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
        async with asyncio.timeout(20):
            while (await spent(there, headers))[0]:
                pass
        assert await spent(here, headers) == (0, ROOM)
