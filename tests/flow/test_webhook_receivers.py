"""The receivers that docs/events.md shows accept what is signed with their secret, and nothing else."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from app.notifications.events import new_secret, sign
from app.rivya.schemes import parse_scheme
from app.sandbox.server import serve_sandbox
from tests.support.commands import program_path
from tests.support.documents import blocks, section
from tests.support.ports import free_port
from tests.support.receivers import receiver

SHOWN = section("docs/events.md", "### Verify a webhook")
BODY = '{"id": "evt_1", "type": "generation.succeeded", "data": {"id": "task_1", "prompt": "füchse"}}'.encode()
SECRET = new_secret()


@asynccontextmanager
async def started(
    words: Sequence[str], *, secret: str, port: int
) -> AsyncIterator[tuple[httpx.AsyncClient, asyncio.StreamReader]]:
    """A receiver, a client of it, and its output."""
    environment = {"PATH": os.environ["PATH"], "PORT": str(port), "WEBHOOK_SECRET": secret}
    process = await asyncio.create_subprocess_exec(
        *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        transport = httpx.AsyncHTTPTransport(retries=10)  # until it listens
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=60) as client:
            yield client, process.stdout
    finally:
        process.kill()
        await process.wait()


@pytest.fixture(params=["python", "js"])
def words(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The command that runs one of the receivers."""
    [program] = blocks(SHOWN, request.param)
    file = tmp_path / ("receiver.py" if request.param == "python" else "receiver.cjs")
    file.write_text(program)
    return [sys.executable if request.param == "python" else program_path("node"), str(file)]


async def test_it_accepts_what_is_signed_with_its_secret_and_nothing_else(words: list[str]) -> None:
    scheme, now = parse_scheme("timestamped"), datetime.now(UTC)
    genuine = sign(BODY, [SECRET], event_id="evt_1", now=now, scheme=scheme)
    rotated = sign(BODY, [new_secret(), SECRET], event_id="evt_1", now=now, scheme=scheme)
    forged = sign(BODY, [new_secret()], event_id="evt_1", now=now, scheme=scheme)
    old = sign(BODY, [SECRET], event_id="evt_1", now=now - timedelta(minutes=6), scheme=scheme)
    async with started(words, secret=SECRET, port=free_port()) as (client, output):
        for headers in (genuine, rotated):
            assert (await client.post("/", content=BODY, headers=headers)).status_code == 204
            assert (await output.readline()).decode().split() == ["generation.succeeded", "task_1"]
        for headers in (forged, old, {}):
            assert (await client.post("/", content=BODY, headers=headers)).status_code == 401
        assert (await client.post("/", content=BODY + b" ", headers=genuine)).status_code == 401


async def test_a_program_that_registers_as_at_rivya_is_called_with_the_outcome(
    words: list[str], sqlite_url: str, tmp_path: Path
) -> None:
    async with (
        serve_sandbox() as rivya,
        receiver(rivya, sqlite_url, tmp_path, RECEIVER_NOTIFY_ALLOW="127.0.0.1") as service,
    ):
        port = free_port()
        answer = await service.client.post("/api/v1/webhooks", json={"url": f"http://127.0.0.1:{port}/hook"})
        async with started(words, secret=answer.json()["signing_secret"], port=port) as (_, output):
            generation_id = await service.create(seconds=0.1)
            async with asyncio.timeout(60):
                assert (await output.readline()).decode().split() == ["generation.succeeded", generation_id]
