"""The main job as a deployment runs it: the real command, a real Rivya over HTTP, both databases."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.sandbox.server import serve_sandbox
from tests.support.ports import free_port
from tests.support.receivers import TOKEN, receiver

BY_CALLBACK: dict[str, dict[str, Any]] = {
    "plain": {},
    "failing": {"fail": True},
    "twice": {"callback": "duplicate"},
    "early": {"callback": "early"},
    "contradicted": {"callback": "contradict"},
}
BY_POLL: dict[str, dict[str, Any]] = {"dropped": {"callback": "drop"}, "forged": {"callback": "forge"}}


@pytest.mark.parametrize(
    ("ways", "settled_by", "grace"), [(BY_CALLBACK, "webhook", "60"), (BY_POLL, "poll", "1")], ids=["callback", "poll"]
)
async def test_every_outcome_is_known_whatever_becomes_of_its_callback(
    empty_database_url: str, tmp_path: Path, ways: dict[str, dict[str, Any]], settled_by: str, grace: str
) -> None:
    async with (
        serve_sandbox() as rivya,
        receiver(rivya, empty_database_url, tmp_path, RECEIVER_POLL_GRACE=grace) as service,
    ):
        ids = {name: await service.create(seconds=0.1, **options) for name, options in ways.items()}
        ended = {name: await service.settled(generation_id) for name, generation_id in ids.items()}
        for name, generation_id in ids.items():
            truth = rivya.sandbox.generations.by_id[generation_id]
            assert ended[name]["status"] == truth.status == ("failed" if name == "failing" else "succeeded")
            assert ended[name]["tracking"]["settled_by"] == settled_by
            history = await service.steps(generation_id)
            assert history[0][0] is None
            assert [step[0] for step in history[1:]] == [step[1] for step in history[:-1]]
            if truth.status == "failed":
                assert ended[name]["error"]["code"] == "generation_failed"
            else:
                assert ended[name]["result"]["primary_url"]


async def test_no_generation_is_polled_while_callbacks_come(empty_database_url: str, tmp_path: Path) -> None:
    async with (
        serve_sandbox() as rivya,
        receiver(rivya, empty_database_url, tmp_path, RECEIVER_POLL_GRACE="30") as service,
    ):
        ids = [await service.create(seconds=0.2) for _ in range(10)]
        assert [(await service.settled(one))["tracking"]["polls"] for one in ids] == [0] * 10
        assert await service.metric("receiver_callbacks_missed_total") == 0


async def test_a_missed_callback_is_counted(empty_database_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya, receiver(rivya, empty_database_url, tmp_path) as service:
        await service.settled(await service.create(seconds=0.1, callback="drop"))
        assert await service.metric("receiver_callbacks_missed_total") == 1


async def test_a_second_start_adopts_the_endpoint_of_the_first(empty_database_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya:
        async with receiver(rivya, empty_database_url, tmp_path) as first:
            port = first.process.port
            first.process.kill()
        async with receiver(rivya, empty_database_url, tmp_path, port=port, RECEIVER_POLL_GRACE="60") as second:
            ended = await second.settled(await second.create(seconds=0.1))
            assert ended["tracking"]["settled_by"] == "webhook"
            assert len(rivya.sandbox.endpoints.by_id) == 1


async def test_what_was_open_when_the_process_was_killed_is_settled_by_the_next_one(
    empty_database_url: str, tmp_path: Path
) -> None:
    async with serve_sandbox() as rivya:
        async with receiver(rivya, empty_database_url, tmp_path) as first:
            ids = [await first.create(seconds=0.3, callback="drop" if n % 2 else "") for n in range(6)]
            port = first.process.port
            first.process.kill()
        async with receiver(rivya, empty_database_url, tmp_path, port=port) as second:
            for generation_id in ids:
                assert (await second.settled(generation_id))["status"] == "succeeded"


async def test_a_create_repeated_with_its_key_is_paid_once(empty_database_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya, receiver(rivya, empty_database_url, tmp_path) as service:
        created = await asyncio.gather(*(service.create(key="order-1", seconds=0.1) for _ in range(10)))
        assert len(set(created)) == 1
        assert len(rivya.sandbox.generations.by_id) == 1


async def test_without_a_rivya_the_service_serves_and_registers_as_soon_as_there_is_one(
    empty_database_url: str, tmp_path: Path
) -> None:
    port = free_port()
    async with receiver(f"http://127.0.0.1:{port}", empty_database_url, tmp_path, is_ready=False) as service:
        await service.migrated()
        assert (await service.client.get("/readyz")).status_code == 503
        assert (await service.check("signing_secret"))["ok"] is False
        assert (await service.client.get("/api/v1/generations")).status_code == 200
        async with serve_sandbox(port=port) as rivya:
            await service.ready()
            assert len(rivya.sandbox.endpoints.by_id) == 1
            await service.settled(await service.create(seconds=0.1))


async def test_with_a_secret_given_by_hand_nothing_is_registered(empty_database_url: str, tmp_path: Path) -> None:
    secret = "whsec_given_by_hand_0123456789"
    async with (
        serve_sandbox() as rivya,
        receiver(rivya, empty_database_url, tmp_path, RIVYA_SIGNING_SECRET=secret, RECEIVER_POLL_GRACE="30") as service,
    ):
        assert rivya.sandbox.endpoints.by_id == {}
        mine = {
            "name": "by hand",
            "url": f"{service.process.url}/rivya/webhook",
            "event_types": ["generation.failed"],
        }
        created = await service.client.post(
            f"{rivya.base_url}/api/v1/webhooks",
            json={**mine, "event_types": ["generation.succeeded", "generation.failed"]},
            headers={"Authorization": "Bearer rvya_sk_sandbox"},
        )
        rivya.sandbox.endpoints.by_id[created.json()["id"]].secret = secret
        ended = await service.settled(await service.create(seconds=0.1))
        assert ended["tracking"]["settled_by"] == "webhook"


async def test_told_to_stop_it_finishes_and_exits_0(empty_database_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya, receiver(rivya, empty_database_url, tmp_path) as service:
        generation_id = await service.create(seconds=60)
        waiting = asyncio.create_task(service.client.get(f"/api/v1/generations/{generation_id}", params={"wait": 60}))
        await service.client.get("/livez")
        assert await asyncio.to_thread(service.process.terminate) == 0
        answer = await waiting
        assert answer.json()["status"] in ("queued", "processing")


async def test_nothing_that_is_written_shows_a_secret(empty_database_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya, receiver(rivya, empty_database_url, tmp_path) as service:
        await service.settled(await service.create(seconds=0.1))
        await service.client.post("/rivya/webhook", content=b"forged")
        answers = [(await service.client.get(path)).text for path in ("/api/v1/endpoint", "/readyz", "/metrics")]
        await asyncio.to_thread(service.process.terminate)
        [endpoint] = rivya.sandbox.endpoints.by_id.values()
        secrets = [endpoint.secret, "rvya_sk_sandbox", TOKEN, "MDEyMzQ1Njc4OTAx"]
        for text in (*answers, service.process.log()):
            assert not [secret for secret in secrets if secret in text]
