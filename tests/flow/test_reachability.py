"""Whether Rivya can reach us is tried through whatever stands before us, and each fault is named with its remedy."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from app.core.errors import HealthCheck
from app.endpoint.probe import ProbeKey
from app.endpoint.reachability import Reachability
from app.endpoint.repository import EndpointRepository
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.sandbox.state import Sandbox
from tests.support.receivers import LOOKS, Receiver, receiver
from tests.support.registration_harness import RegistrationHarness, room

KEY = ProbeKey("rvya_sk_of_ours")
Answer = Callable[[list[tuple[bytes, bytes]], bytes], bytes]


def _ok(body: bytes, status: str = "200 OK", *extra: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *extra))
    return head.encode() + b"Connection: close\r\n\r\n" + body


def _self_signed(path: Path) -> ssl.SSLContext:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "us")])
    day, now = timedelta(days=1), datetime.now(UTC)
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day).sign(
        key, hashes.SHA256()
    )
    written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(written + certificate.public_bytes(Encoding.PEM))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path)
    return tls


@asynccontextmanager
async def _proxy(r: RegistrationHarness, answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Something between Rivya and us that answers as `answer` says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines if line)]
        body = await reader.readexactly(int(dict(headers)[b"content-length"]))
        path = (b":path", head.split(b" ")[1])
        writer.write(answer([path, *headers], body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _findings(r: RegistrationHarness, public_url: str) -> dict[str, HealthCheck]:
    replica = await r.start()
    reachability = Reachability(
        replica.client,
        EndpointRepository(replica.database),
        clock=r.clock,
        key=KEY,
        public_url=public_url,
        patience=timedelta(seconds=0.1),
    )
    return {finding.name: finding async for finding in reachability.health_checks()}


def _ours(r: RegistrationHarness, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    answer = KEY.answer([header for header in headers if header[0] != b":path"], body, r.clock.now())
    assert answer is not None
    return _ok(answer)


async def test_a_way_that_changes_nothing_is_well(sqlite_url: str) -> None:
    async with room(sqlite_url) as r, _proxy(r, lambda headers, body: _ours(r, headers, body)) as url:
        findings = await _findings(r, url)
    for name in ("public_url", "trailing_slash", "body", "headers", "time_taken"):
        assert findings[name].ok, findings[name]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (_ok(b"", "308 Permanent Redirect", "Location: https://www.example.com/"), "to https://www.example.com/"),
        (_ok(b"", "502 Bad Gateway"), "proxy answers 502"),
        (_ok(b"hello"), "answered 200, but not by a receiver"),
        (_ok(b"", "404 Not Found"), "answered 404, but not by a receiver"),
    ],
    ids=["redirect", "bad gateway", "somebody else", "not found"],
)
async def test_what_answers_instead_of_us_is_told(sqlite_url: str, answer: bytes, words: str) -> None:
    async with room(sqlite_url) as r, _proxy(r, lambda *_: answer) as url:
        findings = await _findings(r, url)
    assert words in findings["public_url"].detail
    assert not findings["public_url"].ok


async def test_a_changed_body_is_told(sqlite_url: str) -> None:
    async with room(sqlite_url) as r, _proxy(r, lambda headers, body: _ours(r, headers, body.strip())) as url:
        findings = await _findings(r, url)
    assert "was changed on the way" in findings["body"].detail
    assert findings["headers"].ok


async def test_a_lost_header_is_named(sqlite_url: str) -> None:
    def lose(r: RegistrationHarness, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
        return _ours(r, [header for header in headers if header[0] != b"webhook-signature"], body)

    async with room(sqlite_url) as r, _proxy(r, lambda headers, body: lose(r, headers, body)) as url:
        findings = await _findings(r, url)
    assert findings["headers"].detail.startswith("webhook-signature did not arrive")
    assert findings["body"].ok


async def test_a_slash_that_makes_a_difference_is_told(sqlite_url: str) -> None:
    def only_without(r: RegistrationHarness, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
        return _ok(b"", "301 Moved") if dict(headers)[b":path"].endswith(b"/") else _ours(r, headers, body)

    async with room(sqlite_url) as r, _proxy(r, lambda headers, body: only_without(r, headers, body)) as url:
        findings = await _findings(r, url)
    assert (findings["public_url"].ok, findings["trailing_slash"].ok) == (True, False)


async def test_a_certificate_that_nobody_vouches_for_is_told(sqlite_url: str, tmp_path: Path) -> None:
    tls = await asyncio.to_thread(_self_signed, tmp_path / "both.pem")
    async with room(sqlite_url) as r, _proxy(r, lambda *_: b"", tls) as url:
        findings = await _findings(r, url)
    assert findings["public_url"].detail.startswith("TLS fails (self-signed certificate)")


async def test_nobody_there_is_told(sqlite_url: str) -> None:
    async with room(sqlite_url) as r:
        findings = await _findings(r, "http://127.0.0.1:1")
    assert findings["public_url"].detail.startswith("nothing answers (ConnectError)")


async def test_without_a_public_url_there_is_nothing_to_try(sqlite_url: str) -> None:
    async with room(sqlite_url) as r:
        replica = await r.start()
        reachability = Reachability(
            replica.client, EndpointRepository(r.database), clock=r.clock, key=KEY, public_url=None
        )
        [finding] = [finding async for finding in reachability.health_checks()]
    assert "RECEIVER_PUBLIC_URL is not set" in finding.detail


async def _tested(service: Receiver) -> dict[str, tuple[bool, str]]:
    checks = (await service.client.post("/api/v1/endpoint/test")).json()["checks"]
    return {check["name"]: (check["ok"], check["detail"]) for check in checks}


async def _rejections(service: Receiver) -> list[dict[str, Any]]:
    """As soon as any are written down, which happens once a second."""
    for _ in range(LOOKS):
        rejections: list[dict[str, Any]] = (await service.client.get("/api/v1/rejections")).json()["data"]
        if rejections:
            return rejections
        await asyncio.to_thread(service.process.exit_status, within=0.05)
    raise AssertionError(service.process.log())


async def test_a_test_event_that_looks_real_makes_no_generation_while_a_test_was_asked_for(
    sqlite_url: str, tmp_path: Path
) -> None:
    looks_real = Sandbox(settings=SandboxSettings(test_type="generation.succeeded", test_carries="generation"))
    async with serve_sandbox(looks_real) as rivya, receiver(rivya, sqlite_url, tmp_path) as service:
        for _ in range(2):
            assert (await _tested(service))["test_delivery"][0]
        outcomes = [item["outcome"] for item in (await service.client.get("/api/v1/deliveries")).json()["data"]]
        assert outcomes == ["test", "test", "applied"]  # that of the registration can't be told from a real one
        assert len((await service.client.get("/api/v1/generations")).json()["data"]) == 1
        elsewhere = await rivya.sandbox.generations.create("default", {"model": "z-image", "prompt": "x"}, key=None)
        async with asyncio.timeout(30):
            while not (await service.client.get(f"/api/v1/generations/{elsewhere['id']}")).is_success:
                await asyncio.to_thread(service.process.exit_status, within=0.1)


async def test_the_service_knocks_at_itself_and_has_a_test_delivery_sent(
    empty_database_url: str, tmp_path: Path
) -> None:
    once = Sandbox(settings=SandboxSettings(retry_delays=()))  # a second attempt would be a second refusal
    async with serve_sandbox(once) as rivya, receiver(rivya, empty_database_url, tmp_path) as service:
        findings = await _tested(service)
        assert all(ok for ok, _ in findings.values()), findings
        assert findings["test_delivery"][1].startswith("came and was verified")
        assert (await service.client.get("/api/v1/rejections")).json()["data"] == []
        rivya.sandbox.faults.deliveries.forge = True
        ok, detail = (await _tested(service))["test_delivery"]
        assert not ok
        assert "came and was refused" in detail
        [refused] = await _rejections(service)
        assert (refused["reason"], refused["endpoint_id"] is not None) == ("signature_mismatch", True)
