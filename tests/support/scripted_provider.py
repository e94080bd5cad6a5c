"""A Rivya that a test scripts byte by byte: it remembers each request as it came, and answers as told."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Heard:
    """One request."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for given, value in self.headers if given == name), None)


@dataclass
class Upstream:
    """Answers each request with the next script, and goes on with the last one."""

    scripts: deque[Script]
    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """The other side closed a connection."""
    connections: set[asyncio.Task[None] | None] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one exchange."""
        self.connections.add(asyncio.current_task())
        with suppress(OSError, asyncio.IncompleteReadError):
            self.heard.append(await _read(reader))
            script = self.scripts.popleft() if len(self.scripts) > 1 else self.scripts[0]
            await self._act(script, reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def _act(self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Follow the script until its end, or until the other side leaves."""
        acting = asyncio.ensure_future(script(writer))
        leaving = asyncio.ensure_future(reader.read())
        try:
            await asyncio.wait({acting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not acting.done():
                self.ended.set()
        finally:
            acting.cancel()
            leaving.cancel()
            await asyncio.gather(acting, leaving, return_exceptions=True)


def answering(body: bytes, *, status: str = "200 OK", **headers: str) -> Script:
    """An answer, whole; of a header's name `_` stands for `-`."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "Connection: close", "", ""])

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + body)
        await writer.drain()

    return script


@asynccontextmanager
async def scripted(*scripts: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """Such a Rivya, on loopback."""
    upstream = Upstream(deque(scripts))
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=tls)
    upstream.url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield upstream
    await asyncio.gather(*filter(None, upstream.connections), return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Heard:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = [line.partition(":") for line in lines if line]
    headers = [(name.lower(), value.strip()) for name, _, value in fields]
    method, target, _ = first.split(" ")
    heard = Heard(method, target, headers, b"")
    if heard.header("transfer-encoding") == "chunked":
        heard.body = await _read_chunks(reader)
    else:
        heard.body = await reader.readexactly(int(heard.header("content-length") or 0))
    return heard


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return body
