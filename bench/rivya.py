"""A Rivya that answers every poll with success after 50 ms, and remembers when each came; `python -m bench.rivya PORT`.

GET /arrivals tells the moments, as seconds of the system's monotonic clock. It shares its core with PostgreSQL and the
generator, so it is a bare protocol: what a web server would cost here would be missing there.
"""

import asyncio
import sys
import time

import orjson
import uvloop

from bench.events import settled

SECONDS = 0.05
_GENERATIONS = b"/api/v1/generations/"


class Rivya:
    """What all connections share."""

    def __init__(self) -> None:
        self.arrivals: list[float] = []

    def answer(self, target: bytes) -> bytes:
        """What is said about a target, at once or later."""
        if target.startswith(_GENERATIONS):
            return _whole(settled(target.removeprefix(_GENERATIONS).decode()))
        return _whole(self.arrivals if target == b"/arrivals" else {"object": "list", "data": []})


class Connection(asyncio.Protocol):
    """Requests without bodies, one after another."""

    def __init__(self, rivya: Rivya) -> None:
        self._rivya = rivya
        self._rest = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the way back."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request whose head is whole."""
        self._rest += data
        while b"\r\n\r\n" in self._rest:
            head, _, self._rest = self._rest.partition(b"\r\n\r\n")
            self._take(head.split(b" ", 2)[1])
            if b"\r\nConnection: close" in head:
                asyncio.get_running_loop().call_soon(self._transport.close)

    def _take(self, target: bytes) -> None:
        if not target.startswith(_GENERATIONS):
            self._transport.write(self._rivya.answer(target))
            return
        self._rivya.arrivals.append(time.monotonic())
        asyncio.get_running_loop().call_later(SECONDS, self._say, target)

    def _say(self, target: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._rivya.answer(target))


def _whole(told: object) -> bytes:
    body = orjson.dumps(told)
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def serve(port: int) -> None:
    """Until the process is ended."""
    rivya = Rivya()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(rivya), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
