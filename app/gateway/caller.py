"""The caller's side of a relayed call: its body as it comes, and the moment when the caller goes away."""

import asyncio
from collections.abc import AsyncIterator

from starlette.types import Message, Receive

from app.gateway.caller_errors import LONGEST_SILENCE, BodyStalled, BodyTooLarge, CallerGone


class Caller:
    """Reads what the server receives of one request. The body is read once, and no more of it than is asked for."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_whole = asyncio.Event()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises `CallerGone` and `BodyStalled`."""
        is_more = True
        while is_more:
            message = await self._next()
            if message["type"] == "http.disconnect":
                raise CallerGone
            if message.get("body"):
                yield message["body"]
            is_more = message.get("more_body", False)
        self._is_whole.set()

    async def body(self, *, most_bytes: int) -> bytes:
        """The whole body. Raises `BodyTooLarge`, `CallerGone` and `BodyStalled`."""
        body = bytearray()
        async for piece in self.pieces():
            body += piece
            if len(body) > most_bytes:
                raise BodyTooLarge(f"The body is larger than {most_bytes} bytes.")
        return bytes(body)

    def sends_nothing(self) -> None:
        """No body is wanted of this caller."""
        self._is_whole.set()

    async def gone(self) -> None:
        """Return when the caller has left after sending its body; before that, reading the body notices it."""
        await self._is_whole.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> Message:
        try:
            async with asyncio.timeout(LONGEST_SILENCE):
                return await self._receive()
        except TimeoutError:
            raise BodyStalled from None
