"""Reads a request's body, never more of it than allowed and never longer than allowed."""

import asyncio

from starlette.types import Receive, Scope

_SECONDS = 10.0


class BodyTooLarge(Exception):
    """The body is, or says it will be, larger than allowed."""


class BodyIncomplete(Exception):
    """The sender went away or fell silent in mid-body."""


async def read_body(scope: Scope, receive: Receive, *, most_bytes: int) -> bytes:
    """The whole body, as it came.

    Raises `BodyTooLarge` before reading on, `BodyIncomplete` when it doesn't come within 10 seconds.
    """
    if _declared_length(scope) > most_bytes:
        raise BodyTooLarge
    try:
        async with asyncio.timeout(_SECONDS):
            return await _read(receive, most_bytes)
    except TimeoutError as error:
        raise BodyIncomplete from error


async def _read(receive: Receive, most_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BodyIncomplete
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > most_bytes:
            raise BodyTooLarge
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])  # more digits than any length has; the server has checked the rest
    return 0
