"""Two replicas share nothing but one PostgreSQL, and act as one."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from app.rivya.schemes import parse_scheme
from app.rivya.signature import sign
from app.sandbox.server import serve_sandbox
from tests.support.intake_harness import event
from tests.support.ports import free_port
from tests.support.receivers import receiver


async def test_replicas_started_together_make_one_endpoint_and_all_serve_with_its_secret(
    empty_postgres_url: str, tmp_path: Path
) -> None:
    """On an empty database: one of them migrates, one of them registers."""
    ports = [free_port() for _ in range(3)]
    public = f"http://127.0.0.1:{ports[0]}"
    async with serve_sandbox() as rivya, AsyncExitStack() as stack:
        started = (
            receiver(rivya, empty_postgres_url, tmp_path, port=port, RECEIVER_PUBLIC_URL=public) for port in ports
        )
        replicas = await asyncio.gather(*(stack.enter_async_context(one) for one in started))
        [endpoint] = rivya.sandbox.endpoints.by_id.values()
        for number, replica in enumerate(replicas):
            body = event(f"task_{number}", event_id=f"evt_{number}")
            headers = sign(parse_scheme("timestamped"), endpoint.secret, body, timestamp=datetime.now(UTC), event_id="")
            answer = await replica.client.post(endpoint.url.removeprefix(public), content=body, headers=headers)
            assert answer.status_code == 200


async def test_a_delivery_to_either_replica_is_one_delivery(postgres_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya, receiver(rivya, postgres_url, tmp_path) as one:
        public = f"http://127.0.0.1:{one.process.port}"
        async with receiver(rivya, postgres_url, tmp_path, RECEIVER_PUBLIC_URL=public) as other:
            [endpoint] = rivya.sandbox.endpoints.by_id.values()
            body = event("task_1", event_id="evt_1")
            headers = sign(parse_scheme("timestamped"), endpoint.secret, body, timestamp=datetime.now(UTC), event_id="")
            path = endpoint.url.removeprefix(public)
            answers = await asyncio.gather(
                *((one, other)[n % 2].client.post(path, content=body, headers=headers) for n in range(50))
            )
            assert Counter(answer.status_code for answer in answers) == {200: 50}
            [delivery] = (await one.client.get("/api/v1/deliveries?outcome=applied")).json()["data"]
            assert delivery["attempts"] == 50
            assert await one.steps("task_1") == await other.steps("task_1") == [(None, "succeeded", "webhook")]


async def test_a_wait_at_one_replica_ends_when_the_other_records_the_outcome(postgres_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya, receiver(rivya, postgres_url, tmp_path) as one:
        public = f"http://127.0.0.1:{one.process.port}"
        async with receiver(
            rivya, postgres_url, tmp_path, RECEIVER_PUBLIC_URL=public, RECEIVER_POLL_GRACE="60"
        ) as other:
            generation_id = await other.create(seconds=0.5)
            async with asyncio.timeout(10):
                ended = await other.settled(generation_id)
            assert ended["tracking"]["settled_by"] == "webhook"
