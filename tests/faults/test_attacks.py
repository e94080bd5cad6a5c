"""What one stranger, or one token, does on purpose leaves the others served; `make soak` runs a longer form."""

import asyncio
import os
from collections import Counter
from pathlib import Path

import httpx
import pytest

from app.sandbox.server import serve_sandbox
from tests.support.failing_database import Failing, failing
from tests.support.receivers import TOKEN, receiver

SCALE = 10 if os.environ.get("ATTACKS") == "long" else 1
STRANGERS, SECONDS = 64, 1.0 * SCALE
LONGEST = 5.0
"""Seconds that anybody else may have to wait, on a busy machine."""
PIPELINED, MOST_MEGABYTES = 40_000 * SCALE, 40
MADE_UP = 200 * SCALE
AUTH = {"Authorization": f"Bearer {TOKEN}"}


def megabytes(service: Failing) -> float:
    """Of the process's memory that are in RAM."""
    status = Path(f"/proc/{service.replicas.pids[service.replicas.ports[0]]}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


async def ask_again_and_again(port: int, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: r\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            [length] = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            await reader.readexactly(length)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("path", ["/readyz", "/metrics", "/openapi.json"])
async def test_cheap_requests_of_strangers_leave_deliveries_and_callers_served(
    sqlite_url: str, tmp_path: Path, path: str
) -> None:
    async with failing(sqlite_url, tmp_path) as service:
        await service.recovered()
        port, answers = service.replicas.ports[0], Counter[tuple[str, int]]()
        strangers = [asyncio.create_task(ask_again_and_again(port, path)) for _ in range(STRANGERS)]
        loop = asyncio.get_running_loop()
        until = loop.time() + SECONDS
        while loop.time() < until:
            async with asyncio.timeout(LONGEST):
                answers["delivery", (await service.deliver()).status_code] += 1
            for asked in ("/api/v1/generations", "/api/v1/usage", "/readyz"):
                async with asyncio.timeout(LONGEST):
                    answers[asked, (await service.client.get(asked, headers=AUTH)).status_code] += 1
        assert not any(stranger.done() for stranger in strangers)
        for stranger in strangers:
            stranger.cancel()
        await asyncio.gather(*strangers, return_exceptions=True)
        assert {status for _, status in answers} == {200}, answers


async def test_megabytes_of_pipelined_requests_on_one_connection_take_little_memory(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with failing(sqlite_url, tmp_path) as service:
        await service.recovered()
        before, most = megabytes(service), 0.0
        reader, writer = await asyncio.open_connection("127.0.0.1", service.replicas.ports[0])
        writer.write(b"GET /livez HTTP/1.1\r\nHost: r\r\n\r\n" * PIPELINED)
        answered = 0
        while answered < PIPELINED // 20:
            answered += (await reader.read(65536)).count(b"HTTP/1.1 200")
            most = max(most, megabytes(service) - before)
        assert (await service.deliver()).status_code == 200
        writer.transport.abort()
        assert most < MOST_MEGABYTES, f"{most:.0f} MiB"


async def test_ids_and_models_that_one_token_makes_up_starve_nobody(database_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya, receiver(rivya, database_url, tmp_path) as service:
        created = await service.client.post("/api/v1/tokens", json={"name": "greedy", "role": "write"})
        greedy = {"Authorization": f"Bearer {created.json()['token']}"}

        async def track(number: int) -> httpx.Response:
            body = {"model": f"model-{number}"}
            return await service.client.put(f"/api/v1/generations/made-up-{number}", json=body, headers=greedy)

        for start in range(0, MADE_UP, 50):
            answers = await asyncio.gather(*(track(start + number) for number in range(50)))
            assert {answer.status_code for answer in answers} == {201}
        assert (await service.client.get("/api/v1/usage")).status_code == 200
        generation_id = await service.create(seconds=0.1, callback="drop")
        async with asyncio.timeout(10 + LONGEST):  # it is due after a second, whatever else is
            settled = await service.settled(generation_id)
        assert settled["tracking"]["settled_by"] == "poll"
