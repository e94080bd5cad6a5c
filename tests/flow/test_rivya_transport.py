"""Connections to Rivya against servers that keep them, drop them, break off, are slow and answer too much."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.rivya.errors import RequestWithheld, RivyaUnavailable, RivyaUnreadable
from app.rivya.transport import PollConnections, Transport
from tests.support.certificates import write_certificate
from tests.support.event_loop import pass_time
from tests.support.ports import free_port

UNSPECIFIED = "0.0.0.0"  # noqa: S104 - connected to, not bound
VERIFY = ssl.create_default_context()
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Keeping:
    """A server that keeps connections, and answers each request as told."""

    answer: Callable[["Keeping", asyncio.StreamWriter], Awaitable[None]]
    url: str = ""
    connections: int = 0
    open: int = 0
    heads: list[str] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    dropped: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody's connection has ended."""
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
                try:
                    await self.answer(self, writer)
                    await writer.drain()
                finally:
                    self.under_way -= 1
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        self.open -= 1
        self.dropped.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not is_so():
                await asyncio.sleep(0)


@asynccontextmanager
async def keeping(
    answer: Callable[[Keeping, asyncio.StreamWriter], Awaitable[None]], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Keeping]:
    server = Keeping(answer)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening:
        yield server


@asynccontextmanager
async def opened(
    url: str, *, most: int = 4, idle_seconds: float = 60.0, most_bytes: int = 100
) -> AsyncIterator[PollConnections]:
    transport = PollConnections(
        url, "rvya_sk_test", most=most, verify=VERIFY, most_body_bytes=most_bytes, idle_seconds=idle_seconds
    )
    yield transport
    await transport.aclose()


async def ok(_server: Keeping, writer: asyncio.StreamWriter) -> None:
    writer.write(ANSWER)


async def ok_in_its_turn(server: Keeping, writer: asyncio.StreamWriter) -> None:
    """Let every other request that may come do so first."""
    for _ in range(50):
        await asyncio.sleep(0)
    writer.write(ANSWER)


async def test_requests_one_after_another_need_one_connection() -> None:
    async with keeping(ok) as server, opened(server.url) as transport:
        for _ in range(5):
            answer = await transport.get("/x", seconds=60)
            assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"ok", "2")
        assert server.connections == 1


async def test_a_request_says_who_asks_and_where_below_the_base_url() -> None:
    async with keeping(ok) as server, opened(f"{server.url}/proxied/") as transport:
        await transport.get("/api/v1/generations/a%2Fb", seconds=60)
    head = server.heads[0].lower()
    assert server.heads[0].startswith("GET /proxied/api/v1/generations/a%2Fb HTTP/1.1\r\n")
    assert f"host: {server.url.removeprefix('http://')}\r\n" in head
    assert "authorization: bearer rvya_sk_test\r\n" in head
    assert "accept-encoding: identity\r\n" in head
    assert "cookie" not in head


async def test_a_connection_that_the_server_closed_while_idle_is_not_used_again() -> None:
    async def ok_and_leave(_server: Keeping, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWER)
        writer.close()

    async with keeping(ok_and_leave) as server, opened(server.url) as transport:
        for _ in range(3):
            server.dropped.clear()
            assert (await transport.get("/x", seconds=60)).body == b"ok"
            await server.dropped.wait()
        assert server.connections == 3


async def test_an_answer_that_is_reset_half_way_is_no_answer_and_harms_no_other() -> None:
    async def reset_once(server: Keeping, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWER[:-1] if server.connections == 1 else ANSWER)
        if server.connections == 1:
            await writer.drain()
            writer.transport.abort()

    async with keeping(reset_once) as server, opened(server.url) as transport:
        with pytest.raises(RivyaUnavailable) as failure:
            await transport.get("/x", seconds=60)
        assert failure.value.sent
        assert (await transport.get("/x", seconds=60)).body == b"ok"


async def test_half_an_answer_that_was_given_up_is_not_taken_for_the_next_one() -> None:
    async def too_late_once(server: Keeping, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWER[:-1] if server.connections == 1 else ANSWER)
        if server.connections == 1:
            pass_time(60)

    async with keeping(too_late_once) as server, opened(server.url, most=1) as transport:
        with pytest.raises(RivyaUnavailable, match="within 60 s") as failure:
            await transport.get("/x", seconds=60)
        assert failure.value.sent
        assert (await transport.get("/x", seconds=60)).body == b"ok"
        assert server.connections == 2


async def test_an_answer_that_is_too_large_is_not_read_on_and_its_connection_closed() -> None:
    async def flood(_server: Keeping, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 101)

    async with keeping(flood) as server, opened(server.url) as transport:
        with pytest.raises(RivyaUnreadable, match="larger than 100 bytes"):
            await transport.get("/x", seconds=60)
        await server.until(lambda: server.open == 0)


async def test_many_at_once_are_never_more_than_there_are_lanes() -> None:
    async with keeping(ok_in_its_turn) as server, opened(server.url, most=3) as transport:
        answers = await asyncio.gather(*(transport.get("/x", seconds=60) for _ in range(40)))
        assert [answer.body for answer in answers] == [b"ok"] * 40
        assert (server.connections, server.most_under_way) == (3, 3)


async def test_who_finds_no_lane_in_time_has_certainly_not_sent_anything() -> None:
    async def hang(server: Keeping, _writer: asyncio.StreamWriter) -> None:
        await server.released.wait()

    async with keeping(hang) as server, opened(server.url, most=1) as transport:
        holding = asyncio.create_task(transport.get("/x", seconds=600))
        await server.until(lambda: server.under_way == 1)
        asyncio.get_running_loop().call_soon(pass_time, 20)
        with pytest.raises(RivyaUnavailable, match="no connection") as failure:
            await transport.get("/x", seconds=60)
        assert not failure.value.sent
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        assert len(server.heads) == 1
        server.released.set()


async def test_a_refused_connection_was_certainly_not_sent_and_frees_its_lane() -> None:
    async with opened(f"http://127.0.0.1:{free_port()}", most=1) as transport:
        for _ in range(2):
            with pytest.raises(RivyaUnavailable, match="ConnectError") as failure:
                await transport.get("/x", seconds=60)
            assert not failure.value.sent


async def test_a_request_that_may_not_leave_any_more_is_held_back_though_it_is_connected() -> None:
    async with keeping(ok) as server, opened(server.url) as transport:
        with pytest.raises(RequestWithheld):
            await transport.get("/x", seconds=60, before_send=_withhold)
        response = await transport.get("/x", seconds=60, before_send=_permit)
        assert response.body == b"ok"
        assert len(server.heads) == 1


async def test_connections_that_are_needed_no_more_are_closed_one_by_one() -> None:
    async with keeping(ok_in_its_turn) as server, opened(server.url, idle_seconds=-1.0) as transport:
        await asyncio.gather(*(transport.get("/x", seconds=60) for _ in range(4)))
        await server.until(lambda: server.open == 0)


async def test_a_connection_still_in_use_when_all_is_closed_ends_with_its_request() -> None:
    async with keeping(ok_in_its_turn) as server, opened(server.url) as transport:
        asking = asyncio.create_task(transport.get("/x", seconds=60))
        await server.until(lambda: server.under_way == 1)
        await transport.aclose()
        assert (await asking).body == b"ok"
        await server.until(lambda: server.open == 0)


async def _withhold() -> bool:
    return False


async def _permit() -> bool:
    return True


def numbered(server: Keeping, *, chunked: bool = False) -> bytes:
    """An answer that names the connection and the request."""
    body = b"%d.%d" % (server.connections, len(server.heads))
    if chunked:
        return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n%b\r\n0\r\n\r\n" % body
    return b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n%b" % body


async def in_one_piece(server: Keeping, writer: asyncio.StreamWriter) -> None:
    writer.write(numbered(server) * 2)


async def chunked(server: Keeping, writer: asyncio.StreamWriter) -> None:
    writer.write(numbered(server, chunked=True) * 2)


async def one_byte_more(server: Keeping, writer: asyncio.StreamWriter) -> None:
    writer.write(numbered(server) + b"H")


async def an_informational_one(server: Keeping, writer: asyncio.StreamWriter) -> None:
    writer.write(numbered(server) + b"HTTP/1.1 103 Early Hints\r\n\r\n")


async def as_a_record_of_its_own(server: Keeping, writer: asyncio.StreamWriter) -> None:
    writer.writelines([numbered(server), numbered(server)])


SURPLUS = [in_one_piece, chunked, one_byte_more, an_informational_one, as_a_record_of_its_own]


@pytest.mark.parametrize("too_much", SURPLUS)
async def test_a_connection_on_which_more_came_than_was_asked_for_is_not_used_again(
    too_much: Callable[[Keeping, asyncio.StreamWriter], Awaitable[None]],
) -> None:
    async with keeping(too_much) as server:
        async with opened(server.url, most=1) as polls:
            assert [(await polls.get("/x", seconds=60)).body for _ in range(3)] == [b"1.1", b"2.2", b"3.3"]
        transport = Transport(server.url, "rvya_sk_test", verify=VERIFY)
        assert (await transport.exchange("GET", "/x", seconds=60)).body == b"4.4"
        streamed = await transport.open("GET", "/x", silence=60)
        assert b"".join([chunk async for chunk in streamed.iter_bytes()]) == b"5.5"
        assert (await transport.exchange("GET", "/x", seconds=60)).body == b"6.6"
        await transport.aclose()


@pytest.mark.parametrize("too_much", SURPLUS)
async def test_nor_is_one_with_tls_below_which_the_rest_is_not_even_decrypted(
    too_much: Callable[[Keeping, asyncio.StreamWriter], Awaitable[None]], tmp_path: Path
) -> None:
    certificate, key = write_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async with keeping(too_much, tls=tls) as server:
        verify = ssl.create_default_context(cafile=str(certificate))
        polls = PollConnections(server.url, "rvya_sk_test", most=1, verify=verify)
        assert [(await polls.get("/x", seconds=60)).body for _ in range(3)] == [b"1.1", b"2.2", b"3.3"]
        await polls.aclose()


async def test_with_tls_too_requests_one_after_another_need_one_connection(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async with keeping(ok, tls=tls) as server:
        verify = ssl.create_default_context(cafile=str(certificate))
        polls = PollConnections(server.url, "rvya_sk_test", most=1, verify=verify)
        for _ in range(5):
            assert (await polls.get("/x", seconds=60)).body == b"ok"
        assert server.connections == 1
        await polls.aclose()


async def test_what_comes_after_the_answer_while_nobody_asks_is_no_answer_either() -> None:
    server_side: list[asyncio.StreamWriter] = []

    async def answer(server: Keeping, writer: asyncio.StreamWriter) -> None:
        server_side.append(writer)
        writer.write(numbered(server))

    async with keeping(answer) as server, opened(server.url, most=1) as polls:
        assert (await polls.get("/x", seconds=60)).body == b"1.1"
        server_side[0].write(numbered(server))
        await server_side[0].drain()
        assert (await polls.get("/x", seconds=60)).body == b"2.2"


@pytest.fixture
def no_exception(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    return monkeypatch


@pytest.mark.parametrize(("exception", "asked"), [("[::1],fd07::/64", "proxy"), (f"[::1],{UNSPECIFIED}", "server")])
async def test_a_proxy_in_the_environment_is_asked_for_the_world_unless_it_is_excepted(
    no_exception: pytest.MonkeyPatch, exception: str, asked: str
) -> None:
    """This address is on this machine too, and does not count as loopback."""

    async def refusing(_server: Keeping, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 418 Teapot\r\ncontent-length: 0\r\n\r\n")

    async with keeping(refusing) as proxy:
        connected = asyncio.Event()

        def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connected.set()
            writer.close()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            at = f"{UNSPECIFIED}:{server.sockets[0].getsockname()[1]}"
            no_exception.setenv("HTTPS_PROXY", proxy.url)
            no_exception.setenv("NO_PROXY", exception)
            async with opened(f"https://{at}/base") as transport:
                with pytest.raises(RivyaUnavailable):
                    await transport.get("/x", seconds=60)
        assert connected.is_set() == (asked == "server")
        heads = [head.partition("\r\n")[0] for head in proxy.heads]
        assert heads == ([f"CONNECT {at} HTTP/1.1"] if asked == "proxy" else [])


async def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(no_exception: pytest.MonkeyPatch) -> None:
    async with keeping(ok) as proxy, keeping(ok) as server:
        no_exception.setenv("HTTP_PROXY", proxy.url)
        async with opened(server.url) as transport:
            assert (await transport.get("/x", seconds=60)).body == b"ok"
        assert (len(proxy.heads), len(server.heads)) == (0, 1)
