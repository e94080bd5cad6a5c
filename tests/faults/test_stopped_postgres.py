"""PostgreSQL stopped under a serving receiver: no 2xx without a row, and full service again once it is back."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from app.rivya.schemes import parse_scheme
from app.rivya.signature import sign
from app.sandbox.server import serve_sandbox
from tests.support.intake_harness import event
from tests.support.postgres import PostgresCluster, StopMode
from tests.support.receivers import Receiver, receiver


async def deliver(service: Receiver, url: str, secret: str, number: int) -> httpx.Response:
    body = event(f"task_{number}", event_id=f"evt_{number}")
    headers = sign(parse_scheme("timestamped"), secret, body, timestamp=datetime.now(UTC), event_id="")
    return await service.client.post(url, content=body, headers=headers)


@pytest.mark.parametrize("how", ["immediate", "fast"])
async def test_deliveries_are_answered_503_while_postgresql_is_stopped_and_200_after(
    how: StopMode, tmp_path: Path
) -> None:
    with PostgresCluster() as cluster:
        async with serve_sandbox() as rivya, receiver(rivya, cluster.url("postgres"), tmp_path) as service:
            [endpoint] = rivya.sandbox.endpoints.by_id.values()
            assert (await deliver(service, endpoint.url, endpoint.secret, 0)).status_code == 200
            await asyncio.to_thread(cluster.stop, how)
            for number in range(1, 4):
                refused = await deliver(service, endpoint.url, endpoint.secret, number)
                assert refused.status_code == 503
                assert int(refused.headers["retry-after"]) > 0
            await service.not_ready()
            assert (await service.client.get("/livez")).status_code == 200
            assert (await service.client.get("/api/v1/generations/task_0")).status_code == 503
            await asyncio.to_thread(cluster.start)
            await service.ready()
            for number in range(1, 4):
                assert (await deliver(service, endpoint.url, endpoint.secret, number)).status_code == 200
            listed = (await service.client.get("/api/v1/generations")).json()["data"]
            assert {it["id"] for it in listed} == {f"task_{number}" for number in range(4)}
            ended = await service.settled(await service.create(seconds=0.1, callback="drop"))
            assert ended["tracking"]["settled_by"] == "poll"
