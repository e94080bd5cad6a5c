"""What one connection may cost: bytes, time and a place, with the fast path and without it."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest
import uvloop

from app.cli.server import Server, max_connections
from app.core.background import BackgroundLoops
from app.core.clock import SystemClock
from app.core.records import dump_json
from app.core.settings import load
from app.fastpath.connections import MAX_UNPARSED_BYTES, BoundedProtocol
from tests.support.fast_path_comparison import LAST, NOBODY, ServerPair, delivery, read, server_pair
from tests.support.receivers import environment
from tests.support.reports import status_claim, submit, webhook

READ_AT_ONCE = 256 * 1024
"""Bytes that the event loop reads from a socket at once."""
LIVE = b"GET /livez HTTP/1.1\r\nHost: r\r\n\r\n"
LARGE = b"GET /openapi.json HTTP/1.1\r\nHost: r\r\n\r\n"
MOST_EVENTS = 2000
"""Of 50 kB: so many fit into no buffer."""
MOST_KEPT = 4 * 1024 * 1024
"""Bytes that a process holds for one stream."""
LONG_WAITS = ("60", "59.5")
"""The fast path takes the first and leaves the second to the route."""


class Side:
    """One of the two servers, and connections to it."""

    def __init__(self, both: ServerPair, number: int) -> None:
        self.both = both
        self._server: Server = (both.fast, both.plain)[number]
        self.port = both.ports[number]
        self.open_id = f"task_open_{number}"

    async def prepare(self) -> None:
        """Record a generation that nothing has settled."""
        await self.both.service.batch.record(submit(self.open_id))

    def waiting(self, wait: str) -> bytes:
        """A read that waits for that generation."""
        return read(f"/api/v1/generations/{self.open_id}?wait={wait}")

    def settling(self) -> bytes:
        """A delivery that settles it."""
        return delivery(self.open_id)

    @property
    def connections(self) -> set[BoundedProtocol]:
        return cast("set[BoundedProtocol]", self._server.server_state.connections)

    @property
    def waiters(self) -> int:
        return self.both.service.changes.count

    @asynccontextmanager
    async def open(self, *pieces: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            yield reader, writer
        finally:
            writer.transport.abort()

    def deaf(self) -> socket.socket:
        """A connection whose other end reads nothing, and for which the kernel keeps little."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", self.port))
        connection.setblocking(False)
        return connection

    async def ask(self, *requests: bytes, ends: bool = False) -> list[int]:
        """The statuses of the answers until the connection ends; `ends`: our side of it, behind the last request."""
        async with self.open(b"".join(requests)) as (reader, writer):
            if ends:
                writer.write_eof()
            return await statuses(reader)


async def statuses(reader: asyncio.StreamReader) -> list[int]:
    async with asyncio.timeout(20):
        try:
            heard = await reader.read()
        except ConnectionError:
            heard = b""
    return [int(part[:3]) for part in heard.split(b"HTTP/1.1 ")[1:]]


async def eventually(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0)


Ask = Callable[[Side], Awaitable[None]]
Serve = Callable[..., None]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> Serve:
    """Runs a scenario against the server with the fast path, and then against the one without."""

    def run(ask: Ask, *, idle: float = 75, **changes: str) -> None:
        async def both_ways() -> None:
            async with server_pair(monkeypatch, sqlite_url, **changes) as both:
                for number, server in enumerate((both.fast, both.plain)):
                    server.config.timeout_keep_alive = cast("int", idle)
                    side = Side(both, number)
                    await side.prepare()
                    await ask(side)
                    await eventually(lambda server=server: not server.server_state.connections)  # type: ignore[misc]

        uvloop.run(both_ways())

    return run


@pytest.fixture
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.fastpath.connections.HEAD_SECONDS", 0.5)
    monkeypatch.setattr("app.fastpath.connections.WRITE_SECONDS", 0.5)
    monkeypatch.setattr("app.fastpath.connections.LINGER_SECONDS", 0.5)


def test_a_refused_client_that_goes_on_sending_is_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.fastpath.connections.LINGER_SECONDS", 600)

    async def flood(writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(20):
            while True:
                writer.write(bytes(64 * 1024))
                await writer.drain()

    async def ask(side: Side) -> None:
        async with side.open(b"no request\r\n\r\n") as (reader, writer):
            assert (await reader.readline()).startswith(b"HTTP/1.1 400")
            with pytest.raises(ConnectionError):
                await flood(writer)
        await eventually(lambda: not side.connections)

    serve(ask)


HALF_CLOSED: list[tuple[Callable[[Side], Sequence[bytes]], list[int]]] = [
    (lambda _: [delivery("task_1")], [200]),
    (lambda _: [read()], [200]),
    (lambda _: [LIVE], [200]),
    (lambda _: [read("/api/v1/generations/nothing")], [404]),
    (lambda _: [b"GET /nowhere HTTP/1.1\r\nHost: r\r\n\r\n"], [404]),
    (lambda _: [b"no HTTP\r\n\r\n"], [400]),
    (lambda side: [side.waiting("1"), LIVE, delivery("task_2"), read()], [200, 200, 200, 200]),
    (lambda side: [side.waiting("0.2"), *[LIVE] * 2500], [200] * 2501),
    (lambda _: [LIVE, delivery("task_3")[:-1]], [200]),
    (lambda _: [LIVE[:-1]], []),
    (lambda _: [], []),
]


def test_a_client_that_sends_nothing_more_is_answered(serve: Serve) -> None:
    async def ask(side: Side) -> None:
        for make, expected in HALF_CLOSED:
            assert await side.ask(*make(side), ends=True) == expected, make(side)[:4]

    serve(ask)


@pytest.mark.usefixtures("short_deadlines")
@pytest.mark.parametrize(
    ("sent", "heard"),
    [(LIVE[:1], [408]), (LIVE[:-1], [408]), (LIVE + LIVE[:1], [200, 408]), (delivery()[:80], [408])],
)
def test_headers_that_do_not_end_are_cut(serve: Serve, sent: bytes, heard: list[int]) -> None:
    async def ask(side: Side) -> None:
        assert await side.ask(sent) == heard

    serve(ask)


@pytest.mark.usefixtures("short_deadlines")
def test_a_stream_of_events_that_nobody_reads_is_cut_and_little_is_kept_for_it(serve: Serve) -> None:
    """The client that it belongs to goes on from its cursor."""

    async def ask(side: Side) -> None:
        loops, tail, most = BackgroundLoops(SystemClock()), side.both.service.feed_tail, 0
        loops.start("tail", tail.run_once)
        with side.deaf() as connection:
            connection.send(read("/api/v1/events", extra="Accept: text/event-stream\r\n"))
            await eventually(lambda: bool(tail._followers.waited_for))
            [stream] = side.connections
            for number in range(MOST_EVENTS):
                await side.ask(large_delivery(f"task_{side.port}_{number}"), ends=True)
                most = max(most, stream.transport.get_write_buffer_size())
                if stream.transport.is_closing():
                    break
            assert stream.transport.is_closing()
            await eventually(lambda: not tail._followers.waited_for)
        assert most < MOST_KEPT
        await loops.stop()

    serve(ask)


def large_delivery(generation_id: str) -> bytes:
    """Whose event has 50 kB."""
    result = {"urls": ["https://files.example/" + "x" * 50_000]}
    carried = {"id": generation_id, "status": "succeeded", "model": "z-image", "result": result}
    content = {"id": f"evt_{generation_id}", "type": "generation.succeeded", "data": carried}
    return delivery(generation_id, body=dump_json(content))


def test_bytes_behind_a_request_that_is_refused_take_no_response_away(serve: Serve) -> None:
    async def ask(side: Side) -> None:
        async with side.open(delivery("task_1"), b"no HTTP\r\n\r\n") as (reader, writer):
            for _ in range(100):
                writer.write(LIVE * 1000)
                await writer.drain()
            assert await statuses(reader) == [200, 400]

    serve(ask)


@pytest.mark.usefixtures("short_deadlines")
def test_a_client_that_is_refused_and_stays_is_cut(serve: Serve) -> None:
    async def ask(side: Side) -> None:
        async with side.open(b"no HTTP\r\n\r\n") as (reader, _):
            assert await statuses(reader) == [400]
            await eventually(lambda: not side.connections)

    serve(ask)


@pytest.mark.parametrize(("sent", "heard"), [(b"", []), (b"\r\n", []), (LIVE, [200]), (LARGE, [200])])
def test_a_connection_that_is_idle_for_too_long_is_closed(serve: Serve, sent: bytes, heard: list[int]) -> None:
    async def ask(side: Side) -> None:
        assert await side.ask(sent) == heard

    serve(ask, idle=0.5)


@pytest.mark.usefixtures("short_deadlines")
def test_a_request_that_takes_longer_than_any_deadline_is_waited_for(serve: Serve) -> None:
    async def ask(side: Side) -> None:
        for wait in ("2", "1.5"):
            assert await side.ask(side.waiting(wait) + LAST[:5], LAST[5:]) == [200, 404]

    serve(ask, idle=0.5)


@pytest.mark.usefixtures("short_deadlines")
@pytest.mark.parametrize("request_", [LARGE, read("/api/v1/generations/task_large")], ids=["document", "generation"])
def test_who_reads_no_answer_is_read_no_further_and_cut(serve: Serve, request_: bytes) -> None:
    async def ask(side: Side) -> None:
        claim = status_claim("task_large", "succeeded", result={"urls": ["u" * 100_000]})
        await side.both.service.batch.record(replace(webhook("task_large", "succeeded"), claim=claim))
        deaf = side.deaf()
        await eventually(lambda: bool(side.connections))
        [connection] = side.connections
        flood = request_ * (8_000_000 // len(request_))
        sent, largest = 0, 0
        while side.connections:
            try:
                sent += deaf.send(flood[sent : sent + 65536])
            except BlockingIOError:
                pass
            except OSError:
                break
            largest = max(largest, len(connection._unparsed) + connection.transport.get_write_buffer_size())
            await asyncio.sleep(0)
        deaf.close()
        assert largest < MAX_UNPARSED_BYTES + 2 * READ_AT_ONCE + 256 * 1024
        assert sent < len(flood)

    serve(ask)


@pytest.mark.parametrize("wait", LONG_WAITS)
def test_who_leaves_many_unread_bytes_behind_is_noticed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, wait: str
) -> None:
    monkeypatch.setattr("app.fastpath.connections.HALF_CLOSED_SECONDS", 0)

    async def ask(side: Side) -> None:
        async with side.open(side.waiting(wait), LIVE * 3000):
            await eventually(lambda: side.waiters == 1)
            [connection] = side.connections
            await eventually(lambda: connection.flow.is_held)
        await eventually(lambda: side.waiters == 0 and not side.connections)

    serve(ask)


def test_new_connections_take_the_place_of_the_oldest_idle_ones(serve: Serve) -> None:
    begun = (b"", LIVE[:9], LIVE, delivery("task_1")[:-1])

    async def ask(side: Side) -> None:
        fast, plain = map(side.waiting, LONG_WAITS)
        async with side.open(fast) as (first, _), side.open(plain) as (second, _):
            await eventually(lambda: side.waiters == 2)
            strangers = [await asyncio.open_connection("127.0.0.1", side.port) for _ in range(40)]
            for number, (_, writer) in enumerate(strangers):
                writer.write(begun[number % len(begun)])
                assert await side.ask(delivery(f"task_{number}") + LAST) == [200, 404]
                assert len(side.connections) <= 12
            assert await side.ask(side.settling() + LAST) == [200, 404]
            for reader in (first, second):
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            for _, writer in strangers:
                writer.transport.abort()

    serve(ask, RECEIVER_MAX_CONNECTIONS="12")


def test_where_every_connection_is_being_answered_a_new_one_is_closed(serve: Serve) -> None:
    async def ask(side: Side) -> None:
        side.both.service.access.most_waiting = 2
        fast, plain = map(side.waiting, LONG_WAITS)
        async with side.open(fast) as (first, _), side.open(plain) as (second, _):
            await eventually(lambda: side.waiters == 2)
            assert await side.ask(LIVE) == []
            await side.both.service.batch.record(webhook(side.open_id, "succeeded"))
            for reader in (first, second):
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")

    serve(ask, RECEIVER_MAX_CONNECTIONS="2")


@pytest.fixture
def _descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("_descriptors")
@pytest.mark.parametrize(("descriptors", "connections"), [(1024, 724), (310, 16), (20_000, 4000)])
def test_a_process_accepts_no_more_connections_than_it_may_open_files(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str, descriptors: int, connections: int
) -> None:
    for name, value in environment(NOBODY, sqlite_url, 1).items():
        monkeypatch.setenv(name, value)
    settings = load()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
    assert max_connections(settings) == connections
    chosen = settings.model_copy(update={"receiver_max_connections": 9})
    assert max_connections(chosen) == 9
