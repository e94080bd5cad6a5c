"""The gateway as a process: no upload is held in memory, no stream delayed, and none outlives its caller."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.sandbox.faults import StreamFault
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.sandbox.state import Sandbox
from tests.support.clock import BUSY
from tests.support.receivers import Receiver, receiver
from tests.support.scripted_provider import scripted

MEGABYTE = 1024 * 1024
TURN = {"model": "gpt-5-2-chat", "message": "hello"}
STREAM = "/api/v1/chat/completions/stream"
TYPE = {"Content-Type": "multipart/form-data; boundary=b0und"}
HEAD = (
    b'--b0und\r\nContent-Disposition: form-data; name="kind"\r\n\r\nvideo\r\n--b0und\r\n'
    b'Content-Disposition: form-data; name="file"; filename="f.mp4"\r\n\r\n\x00\x00\x00\x18ftypmp42'
)
END = b"\r\n--b0und--\r\n"


def resident_bytes(service: Receiver, *, field: str) -> int:
    """Of the process's memory, what is (VmRSS) or once was (VmHWM) in RAM."""
    for line in Path(f"/proc/{service.process.pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


async def film(size: int) -> AsyncIterator[bytes]:
    yield HEAD
    for _ in range(size // MEGABYTE):
        yield bytes(MEGABYTE)
    yield END


async def upload(service: Receiver, size: int) -> httpx.Response:
    return await service.client.post("/api/v1/files", content=film(size), headers=TYPE)


async def test_an_upload_of_50_megabytes_is_not_held_in_memory(sqlite_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya, receiver(rivya, sqlite_url, tmp_path) as service:
        assert (await upload(service, MEGABYTE)).status_code == 200  # what is loaded at the first use
        before = resident_bytes(service, field="VmHWM")
        answer = await upload(service, 49 * MEGABYTE)
        grown = resident_bytes(service, field="VmHWM") - before
        assert answer.status_code == 200, answer.text
        assert answer.json()["size_bytes"] > 49 * MEGABYTE
        assert grown < 10 * MEGABYTE


async def test_a_rivya_that_reads_slowly_does_not_fill_our_memory(sqlite_url: str, tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/files" in head:
            await go_on.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, receiver(url, sqlite_url, tmp_path, is_ready=False) as service:
        await service.migrated()
        before = resident_bytes(service, field="VmHWM")
        sending = asyncio.ensure_future(upload(service, 49 * MEGABYTE))
        for _ in range(100):
            await service.client.get("/livez")
        assert not sending.done()
        assert resident_bytes(service, field="VmHWM") - before < 10 * MEGABYTE
        sending.cancel()
        go_on.set()


async def test_hanging_up_ends_the_stream_at_rivya_within_a_second(sqlite_url: str, tmp_path: Path) -> None:
    settings = SandboxSettings(stream_pause=0)
    async with (
        serve_sandbox(Sandbox(settings=settings)) as rivya,
        receiver(rivya, sqlite_url, tmp_path) as service,
    ):
        rivya.sandbox.faults.stream = StreamFault(after=2, pause=3600)
        async with service.client.stream("POST", STREAM, json=TURN) as answer:
            pieces = answer.aiter_raw()
            await anext(pieces)
            left = asyncio.get_running_loop().time()
        async with asyncio.timeout(10):
            while rivya.sandbox.streams.log[0].fate == "open":
                await asyncio.sleep(0)
        assert rivya.sandbox.streams.log[0].fate == "abandoned"
        assert asyncio.get_running_loop().time() - left < 1 + BUSY
        labels = {"result": "abandoned", "route": STREAM, "token": "tests"}
        assert await service.metric("receiver_api_calls_total", **labels) == 1


async def test_the_first_byte_comes_within_50_ms_of_rivyas(sqlite_url: str, tmp_path: Path) -> None:
    sent_at: list[float] = []

    async def script(writer: asyncio.StreamWriter) -> None:
        sent_at.append(time.monotonic())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await writer.drain()

    async with (
        scripted(script) as rivya,
        receiver(
            rivya.url, sqlite_url, tmp_path, is_ready=False, RIVYA_SIGNING_SECRET="whsec_by_hand_0123456789"
        ) as service,
    ):
        delays = []
        for _ in range(20):
            async with service.client.stream("POST", STREAM, json=TURN) as answer:
                pieces = answer.aiter_raw()
                await anext(pieces)
                delays.append(time.monotonic() - sent_at[-1])
        assert sorted(delays)[5] < 0.05  # the machine may be busy; what is gathered for a time is always late


@pytest.mark.parametrize("connection", ["reset", "hang_up"])
async def test_a_break_at_rivya_is_seen_by_the_caller(sqlite_url: str, tmp_path: Path, connection: str) -> None:
    async with serve_sandbox() as rivya, receiver(rivya, sqlite_url, tmp_path) as service:
        rivya.sandbox.faults.stream = StreamFault(after=2, connection=connection)  # type: ignore[arg-type]
        with pytest.raises(httpx.RemoteProtocolError):
            await service.client.post(STREAM, json=TURN)
        assert (await service.client.get("/api/v1/credits")).status_code == 200
        assert "Traceback" not in service.process.log()
