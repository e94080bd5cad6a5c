"""A TCP proxy before PostgreSQL that gives every session settings of its own, as a connection pooler may."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from sqlalchemy import make_url

_SSL_REQUEST = (80877103).to_bytes(4, "big")
_VERSION_3 = (196608).to_bytes(4, "big")


@asynccontextmanager
async def pooling(url: str, settings: Mapping[str, str]) -> AsyncIterator[str]:
    """The URL of that database through such a proxy; `settings` replace what a session asks for as it starts."""
    target = make_url(url)
    assert target.host is not None
    assert target.port is not None
    host, port, open_ones = target.host, target.port, set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones.add(task)
        task.add_done_callback(open_ones.discard)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            back_reader, back_writer = await asyncio.open_connection(host, port)
            first = await _first(reader)
            if first[4:8] == _SSL_REQUEST:
                writer.write(b"N")
                first = await _first(reader)
            back_writer.write(_changed(first, settings))
            await asyncio.gather(_pipe(reader, back_writer), _pipe(back_reader, writer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        through = target.set(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        yield through.render_as_string(hide_password=False)
    finally:
        server.close()
        for task in list(open_ones):
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)


async def _first(reader: asyncio.StreamReader) -> bytes:
    """A message before the session has begun: its length, which counts itself, and what it says."""
    length = await reader.readexactly(4)
    return length + await reader.readexactly(int.from_bytes(length, "big") - 4)


def _changed(message: bytes, settings: Mapping[str, str]) -> bytes:
    """Names and values alternate after the protocol's version, each ended by a zero byte, and all by one more."""
    version = message[4:8]
    if version != _VERSION_3:  # a wish to cancel a statement
        return message
    words = message[8:-2].split(b"\0")
    asked = dict(zip(words[::2], words[1::2], strict=True))
    asked |= {name.encode(): value.encode() for name, value in settings.items()}
    said = version + b"".join(name + b"\0" + value + b"\0" for name, value in asked.items()) + b"\0"
    return (len(said) + 4).to_bytes(4, "big") + said


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
