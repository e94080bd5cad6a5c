"""Whatever answers at our public URL: no more than so many bytes of it are read, and no longer than so many seconds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from app.endpoint.reachability import ProbeFailed, send_probe
from tests.support.event_loop import pass_time


@asynccontextmanager
async def endless(piece: bytes, *, seconds: float = 0) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The URL of a server whose answer has no end, and the event that somebody hung up on it.

    So many `seconds` pass with each piece.
    """
    hung_up = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not reader.at_eof():
                writer.write(piece)
                await writer.drain()
                pass_time(seconds)
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(), 0.001)
        hung_up.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", hung_up


async def test_an_answer_without_end_is_read_to_the_bound_only() -> None:
    async with asyncio.timeout(60), endless(b"x" * 65536) as (url, hung_up):
        answer = await send_probe(url, b"", headers={}, seconds=30)
        assert len(answer.body) == 256 * 1024
        await hung_up.wait()


async def test_an_answer_that_drips_is_given_up_after_the_whole_time() -> None:
    async with asyncio.timeout(600), endless(b"x", seconds=1) as (url, hung_up):
        with pytest.raises(ProbeFailed, match=r"^no whole answer within 30 s$"):
            await send_probe(url, b"", headers={}, seconds=30)
        await hung_up.wait()
