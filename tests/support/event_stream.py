"""Server-sent events as our command line reads them."""

import asyncio
from collections.abc import AsyncIterator

import httpx
from httpx_sse import ServerSentEvent

from app.cli.client.http import Receiver


async def stream(chunks: AsyncIterator[bytes], media_type: str = "text/event-stream") -> AsyncIterator[ServerSentEvent]:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Type": media_type}, content=chunks)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://receiver") as client:
        async for event in Receiver(client).stream("chat", "completions", "stream", body={}):
            yield event


async def pieces(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def read(chunks: list[bytes]) -> list[ServerSentEvent]:
    async def collect() -> list[ServerSentEvent]:
        return [event async for event in stream(pieces(chunks))]

    return asyncio.run(collect())
