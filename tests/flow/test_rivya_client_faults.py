"""The client against servers that refuse, hang, drip, break off, flood and talk nonsense."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from app.rivya.client import Deadlines, RivyaClient
from app.rivya.errors import RivyaRateLimited, RivyaRefused, RivyaUnavailable, RivyaUnreadable
from tests.support.event_loop import pass_time
from tests.support.ports import free_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PATIENT = Deadlines(status=60, create=60, manage=60)
"""For whatever is answered: a busy machine is no server that hangs."""
UNSPECIFIED = "0.0.0.0"  # noqa: S104 - connected to, not bound
GENERATION = b'{"id":"task_1","status":"queued"}'


@asynccontextmanager
async def raw_server(handler: Handler, *, until: bytes = b"\r\n\r\n") -> AsyncIterator[str]:
    """A server that reads a request's head and then does what the handler says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(until)
            await handler(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        yield f"http://127.0.0.1:{port}"


def saying(*parts: bytes) -> Handler:
    async def handler(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.writelines(parts)
        await writer.drain()

    return handler


def http(body: bytes, *, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(body), headers, body)


async def asking(handler: Handler, *, most: int = 10_000) -> None:
    async with (
        raw_server(handler) as url,
        RivyaClient(url, "rvya_sk_test", deadlines=PATIENT, most_body_bytes=most) as client,
    ):
        await client.get_generation("task_1")


async def unavailable(handler: Handler) -> RivyaUnavailable:
    with pytest.raises(RivyaUnavailable) as failure:
        await asking(handler)
    return failure.value


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def hanging(seconds: float) -> Handler:
    """A server that does not answer while so much time passes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pass_time(seconds)
        await hang(reader, writer)

    return handler


async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a byte a second: no single read ever times out."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"\n")
        await writer.drain()
        pass_time(1)
        await asyncio.sleep(0)


async def test_a_server_that_never_answers_is_given_up_and_may_have_acted() -> None:
    assert (await unavailable(hanging(60))).sent


async def test_a_server_that_drips_is_given_up_at_the_deadline() -> None:
    with pytest.raises(RivyaUnavailable, match="within 60 s"):
        await asking(drip, most=10**9)


async def test_a_connection_closed_without_an_answer_leaves_open_whether_it_acted() -> None:
    assert (await unavailable(saying())).sent


async def test_an_answer_broken_off_is_no_answer() -> None:
    assert (await unavailable(saying(http(GENERATION)[:-5]))).sent


async def test_a_refused_connection_was_certainly_not_sent() -> None:
    async with RivyaClient(f"http://127.0.0.1:{free_port()}", "rvya_sk_test", deadlines=PATIENT) as client:
        with pytest.raises(RivyaUnavailable) as failure:
            await client.create_generation(b"{}", idempotency_key="k")
    assert not failure.value.sent


@pytest.mark.parametrize("handler", [hanging(5), saying(b"not TLS at all")])
async def test_a_tls_handshake_that_hangs_or_fails_was_certainly_not_sent(handler: Handler) -> None:
    async with (
        raw_server(handler, until=b"\x16") as url,
        RivyaClient(url.replace("http:", "https:"), "rvya_sk_test", deadlines=PATIENT) as client,
    ):
        with pytest.raises(RivyaUnavailable, match="Connect") as failure:
            await client.get_generation("task_1")
    assert not failure.value.sent


async def test_a_request_that_finds_no_free_connection_was_certainly_not_sent() -> None:
    arrived, are_all_taken = itertools.count(1), asyncio.Event()

    async def note_and_hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if next(arrived) == 20:
            are_all_taken.set()
        await hang(reader, writer)

    # Who holds the connections has all the time it needs: only the one that finds none may run out of it.
    deadlines = Deadlines(manage=60, create=0.6)
    async with raw_server(note_and_hang) as url, RivyaClient(url, "rvya_sk_test", deadlines=deadlines) as client:
        holding = [asyncio.create_task(client.server_time()) for _ in range(20)]
        await asyncio.wait_for(are_all_taken.wait(), 30)
        with pytest.raises(RivyaUnavailable) as failure:
            await client.create_generation(b"{}", idempotency_key="k")
        for task in holding:
            task.cancel()
        await asyncio.gather(*holding, return_exceptions=True)
    assert not failure.value.sent
    assert next(arrived) == 21


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\xff garbage\r\n\r\n",
        b"HTTP/1.1 999999 Odd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://[::1\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 099 Low\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\n\r\n",
        http(GENERATION, status=b"600 High"),
        http(GENERATION, status=b"999 Higher"),
        http(GENERATION, headers=b"transfer-encoding: chunked\r\n"),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        http(b"", status=b"400 Bad", headers=b"content-encoding: gzip\r\n"),
        http(b"<html>Bad gateway", status=b"502 Bad Gateway"),
        http(b"<html>Not found", status=b"404 Not Found"),
    ],
)
async def test_an_answer_that_is_not_rivyas_is_no_answer(answer: bytes) -> None:
    assert (await unavailable(saying(answer))).sent


async def test_a_refusal_is_typed_and_keeps_its_body_for_a_relay() -> None:
    body = b'{"error":{"code":"validation_failed","message":"prompt is missing","requestId":"req_1"}}'
    with pytest.raises(RivyaRefused) as refusal:
        await asking(saying(http(body, status=b"400 Bad Request")))
    assert (refusal.value.status, refusal.value.code, refusal.value.body) == (400, "validation_failed", body)


async def test_a_rate_limit_tells_how_long_to_wait() -> None:
    with pytest.raises(RivyaRateLimited) as refusal:
        await asking(saying(http(b"", status=b"429 Too Many", headers=b"retry-after: 2\r\n")))
    assert refusal.value.retry_after == 2.0


@pytest.mark.parametrize("key", ["", "rvya_sk_ü", "rvya_sk\n"])
async def test_an_api_key_that_is_no_header_value_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as refusal:
        RivyaClient("http://127.0.0.1", key)
    assert key == "" or key not in str(refusal.value)


async def test_a_redirect_is_not_followed() -> None:
    failure = await unavailable(saying(http(b"", status=b"307 Away", headers=b"location: /elsewhere\r\n")))
    assert failure.status == 307


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"id":"task_1","status":"odd"}', b"[" * 5000])
async def test_a_success_that_cannot_be_understood_is_unreadable(body: bytes) -> None:
    with pytest.raises(RivyaUnreadable) as failure:
        await asking(saying(http(body)))
    assert failure.value.status == 200


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"identity, gzip", b"x-odd"])
async def test_an_encoded_success_is_unreadable_and_never_decoded(encoding: bytes) -> None:
    with pytest.raises(RivyaUnreadable, match="encoded"):
        await asking(saying(http(GENERATION, headers=b"content-encoding: %b\r\n" % encoding)))


async def test_an_answer_about_another_generation_is_unreadable() -> None:
    with pytest.raises(RivyaUnreadable, match="another generation"):
        await asking(saying(http(GENERATION.replace(b"task_1", b"task_2"))))


@pytest.mark.parametrize(
    ("members", "headers"),
    [(b',"client_request_id":"order-2"', b""), (b"", b"idempotency-key: other\r\n")],
)
async def test_an_answer_to_another_create_is_unreadable(members: bytes, headers: bytes) -> None:
    answer = saying(http(GENERATION[:-1] + members + b"}", headers=headers))
    async with raw_server(answer) as url, RivyaClient(url, "rvya_sk_test", deadlines=PATIENT) as client:
        with pytest.raises(RivyaUnreadable, match="another create"):
            await client.create_generation(b'{"client_request_id":"order-1"}', idempotency_key="k")


@pytest.mark.parametrize("members", [b"", b',"client_request_id":null', b',"client_request_id":"order-1"'])
async def test_an_answer_to_a_create_need_not_repeat_its_trace_id(members: bytes) -> None:
    answer = saying(http(GENERATION[:-1] + members + b"}", headers=b"idempotency-key: k\r\n"))
    async with raw_server(answer) as url, RivyaClient(url, "rvya_sk_test", deadlines=PATIENT) as client:
        created = await client.create_generation(b'{"client_request_id":"order-1"}', idempotency_key="k")
    assert created.generation.id == "task_1"


async def test_an_answer_about_another_endpoint_is_unreadable() -> None:
    answer = saying(http(b'{"id":"whend_2","url":"https://example.com/x"}'))
    async with raw_server(answer) as url, RivyaClient(url, "rvya_sk_test", deadlines=PATIENT) as client:
        with pytest.raises(RivyaUnreadable, match="another endpoint"):
            await client.get_endpoint("whend_1")


async def test_our_key_is_struck_out_of_what_rivya_answers() -> None:
    echo = GENERATION[:-1] + b',"trace":"Bearer rvya_sk_test"}'
    async with raw_server(saying(http(echo))) as url, RivyaClient(url, "rvya_sk_test", deadlines=PATIENT) as client:
        generation = await client.get_generation("task_1")
    assert generation.object["trace"] == "Bearer ************"


async def test_a_success_larger_than_the_bound_is_unreadable_and_not_read_on() -> None:
    with pytest.raises(RivyaUnreadable, match="larger than 10000 bytes"):
        await asking(saying(http(b" " * 10_001)))


async def test_an_error_larger_than_the_bound_is_no_answer() -> None:
    assert (await unavailable(saying(http(b" " * 10_001, status=b"400 Bad")))).status == 400


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy would answer; nobody listens where the client is meant to go."""
    async with raw_server(saying(http(GENERATION))) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        async with RivyaClient(f"http://{host}:{free_port()}", "rvya_sk_test", deadlines=PATIENT) as client:
            with pytest.raises(RivyaUnavailable, match="ConnectError"):
                await client.get_generation("task_1")


async def test_a_proxy_in_the_environment_is_asked_for_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(saying(b"HTTP/1.1 418 Teapot\r\n\r\n")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with RivyaClient("https://rivya.example", "rvya_sk_test") as client:
            with pytest.raises(RivyaUnavailable) as failure:
                await client.models()
        assert "418" in str(failure.value.__cause__)


async def test_plain_http_and_the_api_key_in_it_never_go_to_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """This address is on this machine too, and does not count as loopback."""
    async with raw_server(saying(http(GENERATION))) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("ALL_PROXY", proxy)
        async with RivyaClient(f"http://{UNSPECIFIED}:{free_port()}", "rvya_sk_test", deadlines=PATIENT) as client:
            for attempt in (client.get_generation("task_1"), client.models()):
                with pytest.raises(RivyaUnavailable, match="ConnectError"):
                    await attempt
