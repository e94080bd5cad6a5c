"""One attempt to send a notification: which address it goes to, what TLS verifies, and how long it may take."""

import asyncio
import ipaddress
import socket
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.clock import SystemClock
from app.core.urls import Address, AllowList, UrlRejected
from app.notifications.client import NotificationClient
from app.notifications.models import Result
from tests.support.certificates import write_certificate
from tests.support.event_loop import pass_time
from tests.support.network_guard import OutsideWorldError
from tests.support.scripted_provider import Script, answering, scripted

LOOPBACK = AllowList.parse("127.0.0.0/8")
NOBODY = AllowList()
VERIFY = ssl.create_default_context()


class Names:
    """A resolver whose next answer a test decides; the last one stays. It remembers what it was asked."""

    def __init__(self, *answers: Sequence[str] | OSError) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def resolve(self, name: str) -> list[Address]:
        self.asked.append(name)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, OSError):
            raise answer
        return [ipaddress.ip_address(address) for address in answer]


def client(names: Names, *, verify: ssl.SSLContext = VERIFY, seconds: float = 60) -> NotificationClient:
    return NotificationClient(SystemClock(), verify=verify, resolve=names.resolve, seconds=seconds)


def served(folder: Path, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of a server with a certificate for these names, and of a client that trusts it."""
    certificate, key = write_certificate(folder, *names)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    return tls, ssl.create_default_context(cafile=str(certificate))


async def post(sender: NotificationClient, url: str, *, allow: AllowList = LOOPBACK) -> Result:
    try:
        return await sender.send(url, b'{"id": "evt_1"}', {"webhook-id": "evt_1"}, allow=allow)
    finally:
        await sender.aclose()


async def test_the_connection_goes_to_the_checked_address_with_the_name_for_tls_and_host(tmp_path: Path) -> None:
    tls, verify = served(tmp_path, "shop.example.com")
    asked_by_tls: list[str | None] = []
    tls.sni_callback = lambda _socket, name, _context: asked_by_tls.append(name)
    names = Names(["127.0.0.1"])
    async with scripted(answering(b"thank you", status="202 Accepted"), tls=tls) as server:
        port = httpx.URL(server.url).port
        attempt = await post(client(names, verify=verify), f"https://Shop.example.com:{port}/hook?a=b")
    assert (attempt.status, attempt.error, attempt.excerpt) == (202, None, "thank you")
    assert attempt.is_success
    assert names.asked == ["shop.example.com"]
    assert asked_by_tls == ["shop.example.com"]
    [request] = server.heard
    assert (request.method, request.target, request.body) == ("POST", "/hook?a=b", b'{"id": "evt_1"}')
    assert request.header("host") == f"shop.example.com:{port}"
    assert request.header("content-type") == "application/json"
    assert request.header("webhook-id") == "evt_1"


async def test_a_certificate_for_another_name_is_refused_although_the_address_is_right(tmp_path: Path) -> None:
    tls, verify = served(tmp_path, "shop.example.com")
    async with scripted(answering(b""), tls=tls) as server:
        url = f"https://other.example.com:{httpx.URL(server.url).port}/"
        attempt = await post(client(Names(["127.0.0.1"]), verify=verify), url)
    assert (attempt.status, attempt.error, server.heard) == (None, "tls_failed", [])


async def test_two_names_on_one_address_share_no_connection(tmp_path: Path) -> None:
    tls, verify = served(tmp_path, "shop.example.com")
    async with scripted(answering(b""), tls=tls) as server:
        sender, port = client(Names(["127.0.0.1"]), verify=verify), httpx.URL(server.url).port
        first = await sender.send(f"https://shop.example.com:{port}/", b"", {}, allow=LOOPBACK)
        second = await sender.send(f"https://other.example.com:{port}/", b"", {}, allow=LOOPBACK)
        await sender.aclose()
    assert (first.status, second.error) == (200, "tls_failed")


async def test_a_url_with_an_address_needs_a_certificate_for_it(tmp_path: Path) -> None:
    tls, verify = served(tmp_path)
    async with scripted(answering(b""), tls=tls) as server:
        assert (await post(client(Names([]), verify=verify), server.url)).is_success


async def test_a_name_that_changes_its_address_after_the_check_is_not_followed() -> None:
    """The first answer is public and accepted at the create; the one at the attempt is this machine."""
    names = Names(["8.8.8.8"], ["127.0.0.1"])
    async with scripted(answering(b"")) as server:
        url = f"https://rebind.example.com:{httpx.URL(server.url).port}/"
        sender = client(names)
        await sender.check(url, NOBODY)
        attempt = await post(sender, url, allow=NOBODY)
    assert (attempt.status, attempt.error, server.heard) == (None, "url_rejected", [])
    assert names.asked == ["rebind.example.com"] * 2


async def test_a_name_is_resolved_once_for_an_attempt_so_that_it_cant_change_between_check_and_connection() -> None:
    names = Names(["127.0.0.1"], ["8.8.8.8"])
    async with scripted(answering(b"")) as server:
        attempt = await post(client(names), f"http://rebind.example.com:{httpx.URL(server.url).port}/")
    assert (attempt.status, names.asked) == (200, ["rebind.example.com"])


async def test_one_address_that_is_not_allowed_rejects_the_whole_attempt() -> None:
    async with scripted(answering(b"")) as server:
        url = f"http://shop.example.com:{httpx.URL(server.url).port}/"
        attempt = await post(client(Names(["127.0.0.1", "10.0.0.1"])), url)
    assert (attempt.error, server.heard) == ("url_rejected", [])


async def test_the_next_address_is_tried_where_nobody_listens_at_the_first() -> None:
    async with scripted(answering(b"")) as server:
        url = f"http://shop.example.com:{httpx.URL(server.url).port}/"
        attempt = await post(client(Names(["127.0.0.2", "127.0.0.1"])), url)
    assert attempt.status == 200


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    async with scripted(answering(b"", status="307 Temporary Redirect", Location="/elsewhere")) as server:
        attempt = await post(client(Names([])), server.url)
    assert (attempt.status, attempt.is_success, len(server.heard)) == (307, False, 1)


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with scripted(answering(b"")) as server:
        assert (await post(client(Names([])), server.url)).status == 200


async def silent(_writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def test_a_receiver_that_never_answers_is_left_after_the_time_of_an_attempt() -> None:
    async with scripted(silent) as server:
        attempt = await post(client(Names([]), seconds=0.05), server.url)
    assert (attempt.status, attempt.error) == (None, "timed_out")
    assert attempt.milliseconds >= 50


async def test_a_name_server_that_never_answers_takes_no_longer_than_an_attempt() -> None:
    async def resolve(_name: str) -> list[Address]:
        await asyncio.Event().wait()
        return []

    sender = NotificationClient(SystemClock(), verify=VERIFY, resolve=resolve, seconds=0.05)
    assert (await post(sender, "https://shop.example.com/")).error == "timed_out"


def unframed(head: bytes, part: bytes) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(head + part * 200)
        await writer.drain()

    return script


async def test_a_long_answer_is_read_to_a_bound_only() -> None:
    async with scripted(unframed(b"HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\n", b"x" * 700)) as server:
        attempt = await post(client(Names([])), server.url)
    assert (attempt.status, attempt.excerpt) == (500, "x" * 1024)


async def test_an_answer_whose_head_has_no_end_is_no_answer() -> None:
    async with scripted(unframed(b"HTTP/1.1 200 OK\r\n", b"x-filler: " + b"x" * 1000 + b"\r\n")) as server:
        attempt = await post(client(Names([])), server.url)
    assert (attempt.status, attempt.error) == (None, "broken_off")


async def test_a_success_whose_body_never_ends_in_time_is_a_success() -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun")
        while True:  # the time of the attempt passes in hundreds of turns of the loop, and this is read in the first
            pass_time(0.1)
            await asyncio.sleep(0)

    async with scripted(script) as server:
        attempt = await post(client(Names([])), server.url)
    assert (attempt.is_success, attempt.excerpt) == (True, "begun")


async def test_a_connection_that_is_cut_is_no_answer() -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with scripted(script) as server:
        attempt = await post(client(Names([])), server.url)
    assert (attempt.status, attempt.error) == (None, "broken_off")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry_After": "120"}, 120),
        ({"Retry_After": "Fri, 27 Nov 2026 20:31:00 GMT", "Date": "Fri, 27 Nov 2026 20:30:00 GMT"}, 60),
        ({"Retry_After": "soon"}, None),
    ],
)
async def test_the_wait_that_an_answer_asks_for_is_read(headers: dict[str, str], seconds: float | None) -> None:
    async with scripted(answering(b"", status="429 Too Many Requests", **headers)) as server:
        assert (await post(client(Names([])), server.url)).retry_after == seconds


async def test_where_nobody_listens_the_connection_fails() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        attempt = await post(client(Names([])), f"http://127.0.0.1:{bound.getsockname()[1]}/")
    assert (attempt.status, attempt.error) == (None, "connect_failed")


@pytest.mark.parametrize("names", [Names(OSError("no such name")), Names([])])
async def test_a_name_without_addresses_is_not_sent_to(names: Names) -> None:
    assert (await post(client(names), "https://shop.example.com/")).error == "name_unresolved"


async def test_a_url_that_was_allowed_once_is_rejected_when_it_no_longer_is() -> None:
    assert (await post(client(Names([])), "http://127.0.0.1/", allow=NOBODY)).error == "url_rejected"


@pytest.mark.parametrize(
    ("url", "answer", "allow"),
    [
        ("https://shop.example.com/", ["8.8.8.8", "2606:4700::1111"], NOBODY),
        ("https://shop.example.com/", OSError("no such name yet"), NOBODY),
        ("https://8.8.8.8/", OSError("not asked"), NOBODY),
        ("http://shop.example.com/", ["127.0.0.1"], LOOPBACK),
        ("http://inventory/", OSError("not started yet"), AllowList.parse("inventory")),
    ],
)
async def test_a_url_is_accepted_if_nothing_speaks_against_it_now(
    url: str, answer: Sequence[str] | OSError, allow: AllowList
) -> None:
    await client(Names(answer)).check(url, allow)


@pytest.mark.parametrize(
    ("url", "answer", "allow"),
    [
        ("https://shop.example.com/", ["8.8.8.8", "10.0.0.1"], NOBODY),
        ("https://shop.example.com/", ["::ffff:8.8.8.8"], NOBODY),
        ("http://shop.example.com/", ["8.8.8.8"], LOOPBACK),
        ("http://shop.example.com/", OSError("no such name"), LOOPBACK),
        ("https://user@shop.example.com/", ["8.8.8.8"], NOBODY),
    ],
)
async def test_a_url_is_rejected_at_once_where_its_addresses_are_not_allowed(
    url: str, answer: Sequence[str] | OSError, allow: AllowList
) -> None:
    with pytest.raises(UrlRejected) as error:
        await client(Names(answer)).check(url, allow)
    assert (error.value.status, error.value.code) == (400, "webhook_url_rejected")


async def test_names_are_resolved_by_the_system_without_the_threads_of_the_loop() -> None:
    async with scripted(answering(b"")) as server:
        sender = NotificationClient(SystemClock(), verify=VERIFY)
        loop_threads = asyncio.get_running_loop()._default_executor  # type: ignore[attr-defined]
        attempt = await post(
            sender, f"http://localhost:{httpx.URL(server.url).port}/", allow=AllowList.parse("localhost")
        )
        assert asyncio.get_running_loop()._default_executor is loop_threads  # type: ignore[attr-defined]
    assert attempt.status == 200


async def test_callers_whose_names_do_not_resolve_keep_no_notification_from_being_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve, release = socket.getaddrinfo, threading.Event()

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Any:
        if host != "localhost":
            release.wait()
        return resolve("localhost", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("app.notifications.client._CHECK_SECONDS", 60)
    sender = NotificationClient(SystemClock(), verify=VERIFY)
    checks = [asyncio.create_task(sender.check(f"https://dead-{n}.example.com/", NOBODY)) for n in range(16)]
    await asyncio.sleep(0)
    await sender.check("https://one-too-many.example.com/", NOBODY)  # at once: it is as if it could not be resolved
    async with scripted(answering(b"")) as server:
        url = f"http://localhost:{httpx.URL(server.url).port}/"
        assert (await post(sender, url, allow=AllowList.parse("localhost"))).status == 200
    release.set()
    for check in checks:
        with pytest.raises(UrlRejected):
            await check


async def test_a_name_that_the_system_can_not_resolve_is_no_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, **__: object) -> list[object]:
        raise OutsideWorldError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    sender = NotificationClient(SystemClock(), verify=VERIFY)
    assert (await post(sender, "https://shop.example.com/")).error == "name_unresolved"


@pytest.mark.parametrize("piece", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"a: b\r\n"])
async def test_an_answer_whose_head_does_not_end_is_read_no_further(piece: bytes) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" if piece.startswith(b"a") else b"")
        while True:
            writer.write(piece * 1000)
            await writer.drain()

    async with scripted(endless) as server:
        attempt = await post(client(Names(["127.0.0.1"])), server.url)
    assert (attempt.status, attempt.error) == (None, "broken_off")
