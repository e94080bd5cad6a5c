"""The fast path of a real server: an ordinary request is answered in it, any other as if it were not there."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx
import pytest
import uvloop

from app.cli.server import listen, make_server
from app.core.settings import load
from app.main import Service
from app.rivya.schemes import parse_scheme
from app.rivya.signature import sign
from tests.support.databases import Databases
from tests.support.http_paths import CountedTasks
from tests.support.intake_harness import SECRET, event
from tests.support.ports import free_port
from tests.support.receiver_process import ReceiverProcess
from tests.support.receivers import TOKEN, environment

NOBODY = "http://127.0.0.1:1"


def delivery(number: int, *, version: str = "1.1", extra: str = "") -> bytes:
    body = event(f"task_{number}", event_id=f"evt_{number}")
    [(name, value)] = sign(parse_scheme("timestamped"), SECRET, body, timestamp=datetime.now(UTC), event_id="")
    head = f"POST /rivya/webhook HTTP/{version}\r\nHost: r\r\n{extra}Content-Length: {len(body)}\r\n{name}: {value}\r\n"
    return f"{head}\r\n".encode() + body


def forged(*, extra: str = "", path: str = "", body: bytes = b'{"id":"evt_forged"}') -> bytes:
    head = f"POST /rivya/webhook{path} HTTP/1.1\r\nHost: r\r\n{extra}Content-Length: {len(body)}\r\n"
    return f"{head}Rivya-Signature: t=1,v1={'0' * 64}\r\n\r\n".encode() + body


def read(number: int, *, token: str = TOKEN, query: str = "", extra: str = "") -> bytes:
    head = f"GET /api/v1/generations/task_{number}{query} HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {token}\r\n"
    return f"{head}{extra}\r\n".encode()


def track(number: int, *, extra: str = "", body: bytes = b"{}") -> bytes:
    head = f"PUT /api/v1/generations/task_{number} HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {TOKEN}\r\n"
    return f"{head}{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Wire:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()

    async def hear(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of the next answer."""
        async with asyncio.timeout(20):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            return int(head[9:12]), head, await self._reader.readexactly(length)

    @asynccontextmanager
    async def another(self) -> AsyncIterator["Wire"]:
        """To the same server."""
        host, port = self._writer.get_extra_info("peername")
        reader, writer = await asyncio.open_connection(host, port)
        yield Wire(reader, writer)
        writer.close()

    async def is_over(self) -> bool:
        async with asyncio.timeout(20):
            return await self._reader.read() == b""


@pytest.fixture(scope="module")
def port(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a server for all tests of this module, with the generation `task_0` in its record."""
    url = databases.migrated()
    number = free_port()
    settings = {**environment(NOBODY, url, number), "RIVYA_SIGNING_SECRET": SECRET}
    process = ReceiverProcess(settings, tmp_path_factory.mktemp("fast-path"), port=number)
    try:
        process.start()
        while not _is_recorded(process.url):
            process.exit_status(within=0.05)
        yield process.port
    finally:
        process.kill()
        databases.drop(url)


def _is_recorded(url: str) -> bool:
    """Whether the service is ready by now, so that `task_0` was recorded."""
    head, _, body = delivery(0).partition(b"\r\n\r\n")
    name, _, signature = head.decode().rpartition("\r\n")[2].partition(": ")
    return httpx.post(f"{url}/rivya/webhook", content=body, headers={name: signature}, timeout=60).status_code == 200


@asynccontextmanager
async def wired(port: int) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield Wire(reader, writer)
    writer.close()


@pytest.mark.parametrize("cut", [1, 60, 250, -1])
async def test_a_request_in_pieces_is_answered_like_one_that_came_whole(port: int, cut: int) -> None:
    async with wired(port) as wire:
        whole = delivery(1)
        await wire.say(whole[:cut], whole[cut:])
        assert (await wire.hear())[0] == 200
        await wire.say(read(1)[:cut], read(1)[cut:])
        assert (await wire.hear())[0] == 200


async def test_requests_sent_without_waiting_are_answered_in_their_order(port: int) -> None:
    async with wired(port) as wire:
        forged = delivery(2).replace(b"task_2", b"task_9")
        await wire.say(delivery(1) + forged + delivery(3) + read(0) + read(98) + read(0, query="?wait=0.0"))
        statuses = [(await wire.hear())[0] for _ in range(6)]
        assert statuses == [200, 401, 200, 200, 404, 200]


@pytest.mark.parametrize("bad", [b"no HTTP\r\n\r\n", b"no HTTP", b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000])
@pytest.mark.parametrize("query", ["", "?wait=0.0"], ids=["fast path", "route"])
async def test_what_is_no_http_is_refused_after_the_answers_to_what_came_before(
    port: int, bad: bytes, query: str
) -> None:
    async with wired(port) as wire:
        await wire.say(delivery(1) + read(0) + delivery(2) + read(0, query=query) + delivery(3) + bad)
        assert [(await wire.hear())[0] for _ in range(6)] == [200, 200, 200, 200, 200, 400]
        assert await wire.is_over()


async def test_nothing_is_answered_after_a_request_that_closes_the_connection(port: int) -> None:
    async with wired(port) as wire:
        await wire.say(delivery(1) + read(0, query="?wait=0.0", extra="Connection: close\r\n") + read(0) * 9)
        assert [(await wire.hear())[0] for _ in range(2)] == [200, 200]
        assert await wire.is_over()


async def test_a_body_with_many_empty_lines_is_read_as_it_is(port: int) -> None:
    async with wired(port) as wire:
        padded = track(30, body=b'{"metadata":{"order":7}' + b"\r\n" * 9000 + b"}")
        await wire.say(padded + read(30), padded[:5000], padded[5000:] + read(30))
        answers = [await wire.hear() for _ in range(4)]
        assert [status for status, _, _ in answers] == [201, 200, 200, 200]
        assert all(b'"order":7' in body for _, _, body in answers)


async def test_a_trailer_is_no_header_neither_of_its_own_request_nor_of_the_next(port: int) -> None:
    async with wired(port) as wire:
        whole = delivery(1)
        head, _, body = whole.partition(b"\r\n\r\n")
        *_, length, signature = head.split(b"\r\n")
        unsigned = head.replace(length, b"Transfer-Encoding: chunked").replace(b"\r\n" + signature, b"")
        chunks = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
        await wire.say(unsigned + b"\r\n\r\n" + chunks + signature + b"\r\n\r\n")
        assert (await wire.hear())[0] == 401
        token = b"Authorization: Bearer " + TOKEN.encode()
        for query in ("", "?wait=0.0"):
            bare = read(0, query=query).replace(token + b"\r\n", b"")
            chunked = bare[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + token + b"\r\n\r\n"
            await wire.say(chunked + bare + read(0, query=query))
            assert [(await wire.hear())[0] for _ in range(3)] == [401, 401, 200]


@pytest.mark.parametrize(("number", "to"), [(40, "h2c"), (41, "websocket")])
async def test_an_upgrade_is_ignored_and_the_body_is_read(port: int, number: int, to: str) -> None:
    offer = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {to}\r\nHTTP2-Settings: AAMAAABk\r\n"
    async with wired(port) as wire:
        requests = track(number, extra=offer, body=b'{"metadata":{"order":7}}') + delivery(number, extra=offer)
        requests += read(number, extra=offer) + read(number, query="?wait=0.0", extra=offer)
        await wire.say(requests)
        answers = [await wire.hear() for _ in range(4)]
        await wire.say(*(requests[at : at + 50] for at in range(0, len(requests), 50)))
        answers += [await wire.hear() for _ in range(4)]
        assert [status for status, _, _ in answers] == [201, 200, 200, 200, 200, 200, 200, 200]
        for place in (2, 3, 6, 7):
            assert b'"order":7' in answers[place][2]
            assert b'"status":"succeeded"' in answers[place][2]


async def test_the_lane_and_the_route_tell_the_same(port: int) -> None:
    async with wired(port) as wire:
        await wire.say(read(0, extra="X-Request-Id: mine\r\n") + read(0, query="?wait=0.0"))
        (_, head, plain), (_, _, waited) = await wire.hear(), await wire.hear()
        assert plain == waited
        assert b"x-request-id: mine" in head
        assert b"content-type: application/json" in head


async def test_what_the_lane_refuses_is_refused_as_documented(port: int) -> None:
    async with wired(port) as wire:
        await wire.say(
            read(0, token="nobody-gave-me-this") + read(0, query="?wait=x") + read(0, extra="Prefer: wait=1\r\n")
        )
        (refused, head, _), (invalid, _, _), (preferred, applied, _) = [await wire.hear() for _ in range(3)]
        assert (refused, invalid, preferred) == (401, 400, 200)
        assert b"x-request-id: req_" in head
        assert b"preference-applied: wait=1" in applied


async def test_a_forged_delivery_is_told_the_same_in_the_lane_and_in_pieces(port: int) -> None:
    async with wired(port) as wire:
        whole = forged(extra="X-Request-Id: mine\r\n")
        await wire.say(whole + whole)  # the first may look for newer secrets, and then the second waits for it
        answers = [await wire.hear() for _ in range(2)]
        await wire.say(whole[:30], whole[30:])
        answers.append(await wire.hear())
        assert [answer[0] for answer in answers] == [401, 401, 401]
        assert b'"code":"signature_mismatch"' in answers[0][2]
        assert len({body for _, _, body in answers}) == 1
        assert len({frozenset(head.split(b"\r\n")) for _, head, _ in answers}) == 1
        await wire.say(forged(body=b""), forged(extra="Content-Encoding: gzip\r\n"), forged(path="/nobodys"))
        assert [(await wire.hear())[0] for _ in range(3)] == [400, 400, 401]


async def test_whoever_waits_is_told_in_the_lane_as_soon_as_it_is_known(port: int) -> None:
    async with wired(port) as wire, wire.another() as other:
        await other.say(track(7))
        assert (await other.hear())[0] == 201
        await wire.say(read(7, query="?wait=60") + read(0))
        await other.say(read(7, query="?wait=1"))
        status, _, body = await other.hear()
        assert (status, b'"status":"queued"' in body) == (200, True)
        await other.say(delivery(7))
        assert (await other.hear())[0] == 200
        (_, _, waited), (_, _, following) = await wire.hear(), await wire.hear()
        assert b'"id":"task_7"' in waited
        assert b'"status":"succeeded"' in waited
        assert b'"id":"task_0"' in following
        await wire.say(read(99, query="?wait=60"))
        assert (await wire.hear())[0] == 404


@pytest.mark.parametrize("how", [{"version": "1.0"}, {"extra": "Connection: close\r\n"}])
async def test_a_connection_is_closed_where_that_is_asked_for(port: int, how: dict[str, str]) -> None:
    async with wired(port) as wire:
        await wire.say(delivery(1, **how))
        status, head, _ = await wire.hear()
        assert (status, b"connection: close" in head) == (200, True)
        assert await wire.is_over()


def test_an_ordinary_request_needs_no_task(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    given = {"RIVYA_SIGNING_SECRET": SECRET, "RIVYA_SIGNATURE_SCHEME": "timestamped"}
    for name, value in {**environment(NOBODY, database_url, port), **given}.items():
        monkeypatch.setenv(name, value)
    server = make_server(Service(load()))
    tasks = server.server_state.tasks = CountedTasks()

    async def ask() -> None:
        serving_ = asyncio.create_task(server.serve(sockets=[listener]))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        wire = Wire(reader, writer)
        await wire.say(delivery(0) + read(0))
        assert [(await wire.hear())[0] for _ in range(2)] == [200, 200]
        before = tasks.ever
        for number in range(1, 6):
            await wire.say(delivery(number))
            assert (await wire.hear())[0] == 200
            await wire.say(read(number))
            assert (await wire.hear())[0] == 200
            await wire.say(read(number, query="?wait=9"))
            assert (await wire.hear())[0] == 200
            await wire.say(forged())
            assert (await wire.hear())[0] == 401
        assert tasks.ever == before
        await wire.say(read(1, query="?wait=0.0"))
        assert (await wire.hear())[0] == 200
        assert tasks.ever == before + 1
        writer.close()
        server.should_exit = True
        await serving_

    uvloop.run(ask())
