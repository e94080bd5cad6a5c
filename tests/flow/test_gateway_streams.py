"""A stream is passed on piece by piece, unchanged, as fast as the caller reads, and ends for both at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest

from app.core.middleware import CALLERS
from app.gateway.streaming import MOST_AHEAD
from app.gateway.upstream import CallTimeouts, Kind
from app.sandbox.chat import HEARTBEAT
from app.sandbox.faults import ApiFault, StreamFault
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import Dialect, SandboxSettings
from app.sandbox.state import Sandbox
from tests.support.event_loop import pass_time
from tests.support.gateway_harness import GatewayHarness, open_gateway
from tests.support.scripted_provider import answering, scripted

STREAM = "/api/v1/chat/completions/stream"
CHAT = "/api/v1/chat/completions"
TURN = {"model": "gpt-5-2-chat", "message": "hello"}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextlib.asynccontextmanager
async def streaming(room: GatewayHarness, path: str = STREAM) -> AsyncIterator[httpx.Response]:
    async with room.client.stream("POST", path, json=TURN, headers={"Idempotency-Key": "k"}) as answer:
        yield answer


@contextlib.asynccontextmanager
async def manual_sandbox() -> AsyncIterator[tuple[Sandbox, GatewayHarness]]:
    settings = SandboxSettings(stream_pause=0)
    async with (
        serve_sandbox(Sandbox(manual=True, settings=settings)) as rivya,
        open_gateway(rivya.base_url) as room,
    ):
        yield rivya.sandbox, room


async def read(answer: httpx.Response, *, into: bytearray) -> None:
    async for piece in answer.aiter_raw():
        into += piece


def counted(result: str) -> float:
    labels = {"token": "writeer", "route": STREAM, "result": result}
    return CALLERS.get_sample_value("receiver_api_calls_total", labels) or 0.0


async def until(sandbox: Sandbox, fate: str) -> None:
    async with asyncio.timeout(5):
        while not sandbox.streams.log or sandbox.streams.log[-1].fate != fate:
            await asyncio.sleep(0)


@pytest.mark.parametrize("dialect", ["named", "chunks", "crlf"])
async def test_every_dialect_passes_unchanged(dialect: Dialect) -> None:
    async with manual_sandbox() as (sandbox, room):
        sandbox.settings.stream_dialect = dialect
        headers = {"Authorization": "Bearer rvya_sk_sandbox", "Idempotency-Key": "k"}
        through = await room.client.post(STREAM, json=TURN, headers={"Idempotency-Key": "k"})
        straight = await room.client.post(f"{room.rivya_url}{STREAM}", json=TURN, headers=headers)
        assert through.content == straight.content
        assert through.headers["content-type"] == straight.headers["content-type"]
        assert through.headers["cache-control"] == "no-store"
        assert through.headers["x-accel-buffering"] == "no"


async def test_a_piece_reaches_the_caller_while_rivya_has_not_said_more() -> None:
    go_on = asyncio.Event()

    async def script(writer: asyncio.StreamWriter) -> None:
        for piece in (HEAD, chunk(b"data: 1\n"), chunk(b"\ndata: \xff\x00\n\n")):
            writer.write(piece)
            await go_on.wait()
            go_on.clear()
        writer.write(b"0\r\n\r\n")

    async with scripted(script) as rivya, open_gateway(rivya.url) as room, streaming(room) as answer:
        pieces = answer.aiter_raw()
        assert answer.status_code == 200
        for expected in (b"data: 1\n", b"\ndata: \xff\x00\n\n"):
            go_on.set()
            assert await anext(pieces) == expected
        go_on.set()
        assert [piece async for piece in pieces] == []


async def test_heartbeats_and_a_long_silence_are_passed_on() -> None:
    async with manual_sandbox() as (sandbox, room):
        sandbox.faults.stream = StreamFault(after=1, pause=600, heartbeats=2)
        async with streaming(room) as answer:
            pieces, received = answer.aiter_raw(), b""
            while not received.endswith(HEARTBEAT * 2):
                received += await anext(pieces)
            await sandbox.advance(600)
            rest = b"".join([piece async for piece in pieces])
        assert b"message.completed" in rest


@pytest.mark.parametrize("connection", ["reset", "hang_up"])
async def test_when_rivya_breaks_off_the_callers_stream_breaks_too(connection: str) -> None:
    async with manual_sandbox() as (sandbox, room):
        before = counted("broken")
        sandbox.faults.stream = StreamFault(after=2, connection=connection)  # type: ignore[arg-type]
        received = bytearray()
        async with streaming(room) as answer:
            with pytest.raises(httpx.RemoteProtocolError):
                await read(answer, into=received)
        assert (answer.status_code, received.count(b"\n\n")) == (200, 2)
        assert counted("broken") == before + 1


async def test_a_long_answer_that_is_shorter_than_it_says_breaks_too() -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + bytes(MOST_AHEAD + 1))
        await writer.drain()

    async with scripted(script) as rivya, open_gateway(rivya.url) as room:
        with pytest.raises(httpx.RemoteProtocolError):
            await room.client.get("/api/v1/chat/sessions")


async def test_a_long_answer_passes_whole() -> None:
    body = bytes(range(256)) * (MOST_AHEAD // 100)
    async with scripted(answering(body)) as rivya, open_gateway(rivya.url) as room:
        assert (await room.client.get("/api/v1/chat/sessions")).content == body


async def test_a_rivya_that_is_silent_for_too_long_ends_the_stream() -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: 1\n\n"))
        await asyncio.Event().wait()

    timeouts = {Kind.STREAM: CallTimeouts(answer=10, silence=10)}
    async with scripted(script) as rivya, open_gateway(rivya.url, timeouts=timeouts) as room, streaming(room) as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"data: 1\n\n"
        pass_time(10)
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(pieces)


async def test_a_caller_that_leaves_in_mid_stream_cancels_it_at_rivya_and_frees_its_slot() -> None:
    async with manual_sandbox() as (sandbox, room):
        before = counted("abandoned")
        sandbox.faults.stream = StreamFault(after=2, pause=600)
        async with streaming(room) as answer:
            pieces = answer.aiter_raw()
            await anext(pieces)
        await until(sandbox, "abandoned")
        async with asyncio.timeout(10):
            while counted("abandoned") == before:
                await asyncio.sleep(0)
        assert room.gateway.limit.in_use == 0


@pytest.mark.parametrize("path", [CHAT, STREAM])
async def test_a_caller_that_leaves_before_rivya_answers_cancels_the_call(path: str) -> None:
    async def script(_: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with scripted(script) as rivya, open_gateway(rivya.url) as room:
        turn = asyncio.ensure_future(room.client.post(path, json=TURN))
        while not rivya.heard:
            await asyncio.sleep(0)
        turn.cancel()
        async with asyncio.timeout(10):
            await rivya.ended.wait()


async def test_a_slow_caller_slows_rivya_down() -> None:
    written = 0
    piece = bytes(256 * 1024)

    async def script(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(HEAD)
        for _ in range(400):  # 100 MB, which nobody can hold
            writer.write(chunk(piece))
            await writer.drain()
            written += len(piece)

    async with scripted(script) as rivya, open_gateway(rivya.url) as room, streaming(room) as answer:
        pieces = answer.aiter_raw()
        await anext(pieces)
        for _ in range(2000):
            await asyncio.sleep(0)
        settled = written
        for _ in range(2000):
            await asyncio.sleep(0)
        assert written == settled < 30 * 1024 * 1024


async def test_a_stream_that_is_refused_is_refused_as_rivya_does_it() -> None:
    async with manual_sandbox() as (_, room):
        answer = await room.client.post(STREAM, json={**TURN, "model": "z-image"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "chat_model_not_supported")


async def test_a_stream_with_a_key_is_begun_again_before_its_first_byte_and_paid_once() -> None:
    async with manual_sandbox() as (sandbox, room):
        sandbox.faults.api = [ApiFault("chat.stream", status=503, when="after", times=1)]
        async with streaming(room) as answer:
            assert b"message.completed" in await answer.aread()
        assert sandbox.accounts.charges_by_key()["k"]["times"] == 1


async def test_when_the_process_stops_a_stream_gets_a_while_and_then_breaks() -> None:
    async with manual_sandbox() as (sandbox, room):
        sandbox.faults.stream = StreamFault(after=2, pause=600)
        received = bytearray()
        async with streaming(room) as answer:
            room.gateway.shutdown_deadline.start()
            with pytest.raises(httpx.RemoteProtocolError):
                await read(answer, into=received)
        assert received.startswith(b"event: message.created")
        await until(sandbox, "abandoned")


async def test_when_the_process_stops_a_call_without_an_answer_is_told_so() -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        rivya.sandbox.faults.api = [ApiFault("chat.complete", hang=60)]
        turn = asyncio.ensure_future(room.client.post(CHAT, json=TURN))
        while not rivya.sandbox.calls.counts["chat.complete"]:
            await asyncio.sleep(0)
        room.gateway.shutdown_deadline.start()
        answer = await turn
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "stopping")
