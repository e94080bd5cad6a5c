"""Two real replicas: a token that one makes is known to the other within a second, and what it revokes is refused."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from app.sandbox.faults import ApiFault, StreamFault
from app.sandbox.server import serve_sandbox
from tests.support.clock import BUSY
from tests.support.commands import command
from tests.support.receivers import Receiver, environment, receiver

SECONDS = 1.0
TURN = {"model": "gpt-5-2-chat", "message": "hello"}


async def create_token(service: Receiver, name: str, role: str) -> dict[str, str]:
    answer = await service.client.post("/api/v1/tokens", json={"name": name, "role": role})
    return {"Authorization": f"Bearer {answer.json()['token']}"}


async def until(is_so: Callable[[], Awaitable[bool]]) -> float:
    """Seconds until it is so."""
    now = asyncio.get_running_loop().time
    began = now()
    async with asyncio.timeout(20):
        while not await is_so():
            pass
    return now() - began


async def test_a_change_reaches_the_other_replica_within_a_second_also_in_what_is_under_way(
    postgres_url: str, tmp_path: Path
) -> None:
    async with (
        serve_sandbox() as rivya,
        receiver(rivya, postgres_url, tmp_path) as here,
        receiver(rivya, postgres_url, tmp_path, RECEIVER_PUBLIC_URL=here.process.url) as there,
    ):
        rivya.sandbox.faults.stream = StreamFault(after=1, pause=60)
        token = await create_token(here, "shop", "write")
        generation = await here.create(seconds=60)

        async def answers(status: int) -> bool:
            return (await there.client.get("/api/v1/generations", headers=token)).status_code == status

        async def is_create_sent() -> bool:
            await asyncio.sleep(0)
            return rivya.sandbox.calls.counts["generations.create"] == 2

        assert await until(lambda: answers(200)) < SECONDS + BUSY
        rivya.sandbox.faults.api = [ApiFault("generations.create", hang=60)]
        create = {"model": "z-image", "prompt": "a river"}
        path = f"/api/v1/generations/{generation}?wait=50"
        polls = [asyncio.create_task(there.client.get(each, headers=token)) for each in (path, f"{path}.5")]
        polls.append(asyncio.create_task(there.client.post("/api/v1/generations", json=create, headers=token)))
        await until(is_create_sent)
        async with there.client.stream("POST", "/api/v1/chat/completions/stream", json=TURN, headers=token) as answer:
            events = answer.aiter_bytes()
            assert await anext(events)
            now = asyncio.get_running_loop().time
            revoked_at = now()
            assert (await here.client.delete("/api/v1/tokens/shop")).status_code == 200
            refused = [await poll for poll in polls]
            try:
                async for _ in events:
                    pass
                is_cut = False
            except httpx.RemoteProtocolError:
                is_cut = True
            took = now() - revoked_at
        assert [(each.status_code, each.json()["error"]["code"]) for each in refused] == [(401, "api_key_revoked")] * 3
        assert is_cut
        assert took < SECONDS + BUSY
        assert await answers(401)


async def test_the_command_line_makes_rotates_and_revokes_tokens_of_a_running_service(
    database_url: str, tmp_path: Path
) -> None:
    async with serve_sandbox() as rivya, receiver(rivya, database_url, tmp_path) as service:
        settings = environment(rivya.base_url, database_url, 1)

        async def run(words: str, status: int = 0) -> str:
            ended = await command(f"tokens {words}", settings, tmp_path)
            assert ended.status == status, ended.errors
            return ended.output.strip() if status == 0 else ended.errors

        async def answers(secret: str, status: int) -> bool:
            headers = {"Authorization": f"Bearer {secret}"}
            return (await service.client.get("/api/v1/tokens/me", headers=headers)).status_code == status

        first = await run("create shop --role write --expires 90d --rate 60/min --models a,b --credits-per-day 5")
        await until(lambda: answers(first, 200))
        second = await run("rotate shop --overlap 1h")
        await until(lambda: answers(second, 200))
        assert await answers(first, 200)
        listed = await run("list")
        assert "tests: role admin; from RECEIVER_API_TOKENS" in listed
        assert "shop: role write; 5 credits a day; 60 calls a minute; models a, b; expires " in listed
        assert first not in listed
        assert "5 left today; last used" in listed
        changed = await run("change shop --credits-per-day none --rate 30 --expires none")
        assert changed == "changed shop: role write; 30 calls a minute; models a, b"
        [shop] = [each for each in json.loads(await run("list --json"))["data"] if each["name"] == "shop"]
        assert (shop["rate"], shop["credits"]) == (30, {"day": None, "month": None})
        assert json.loads(await run("create other --role read --json"))["token"].startswith("rcv_")
        assert "at least one limit" in await run("change shop", status=2)
        await run("revoke shop")
        await until(lambda: answers(second, 401))
        assert "shop" in await run("create shop --role read", status=1)
        assert "role" in await run("create other --role owner", status=2)
        assert "45s" in await run("create other --role read --expires soon", status=2)
        assert "60/min" in await run("create other --role read --rate some", status=2)
