"""Connections that lie, crawl, flood or fall silent are answered with a 4xx or cut, and hold up nobody else."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from app.rivya.signature import sign
from tests.support.failing_database import SCHEME, SECRET, Failing, failing
from tests.support.receivers import TOKEN

POST = b"POST /rivya/webhook HTTP/1.1\r\nHost: r\r\n"
BODY = b'{"id":"evt_1","type":"generation.succeeded","data":{"id":"task_1","status":"succeeded"}}'


@asynccontextmanager
async def _connection(service: Failing) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.replicas.ports[0])
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _status(service: Failing, request: bytes, *, within: float = 15) -> int:
    """Of the answer to these bytes; 0 where the connection was cut without one."""
    async with _connection(service) as (reader, writer):
        with suppress(OSError):
            writer.write(request)
            await writer.drain()
            async with asyncio.timeout(within):
                line = await reader.readline()
            return int(line.split()[1]) if line else 0
    return 0


def _signed(body: bytes, service: Failing, **more: str) -> bytes:
    signed = sign(SCHEME, SECRET, body, timestamp=service.rivya.sandbox.clock.now(), event_id="evt")
    lines = [f"{name}: {value}\r\n" for name, value in (*signed, *more.items())]
    return POST + "".join(lines).encode()


async def test_lies_about_the_body_are_a_4xx_or_cut_and_nothing_is_recorded(sqlite_url: str, tmp_path: Path) -> None:
    async with failing(sqlite_url, tmp_path) as service:
        bomb = gzip.compress(b"[" + b"0," * 500_000 + b"0]")
        deep = b"[" * 100_000
        cases = {
            "more than declared": POST + b"Content-Length: 5\r\n\r\n" + BODY,
            "twice declared": POST + b"Content-Length: 5\r\nContent-Length: 88\r\n\r\n" + BODY,
            "declared and chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "negative": POST + b"Content-Length: -5\r\n\r\n" + BODY,
            "huge": POST + b"Content-Length: 99999999999999999999\r\n\r\n" + BODY,
            "broken chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + BODY,
            "chunk of all memory": POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + BODY,
            "gzip bomb": POST + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb,
            "deep": POST + b"Rivya-Signature: t=1,v1=00\r\nContent-Length: %d\r\n\r\n" % len(deep) + deep,
            "NUL in a header": POST + b"X-A: a\x00b\r\nContent-Length: 0\r\n\r\n",
            "header flood": POST + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 1000) for n in range(2000)) + b"\r\n",
            "endless header": POST + b"X-A: " + b"a" * 2_000_000,
            "no HTTP": b"\x16\x03\x01\x02\x00" * 40 + b"\r\n\r\n",
        }
        for name, request in cases.items():
            patience = 1 if name in ("endless header", "chunk of all memory") else 15
            try:
                status = await _status(service, request, within=patience)
            except TimeoutError:
                status = 0  # it waits for the rest; the next test shows that this holds up nobody
            assert status == 0 or 400 <= status < 500, (name, status)
            assert (await service.deliver()).status_code == 200, name
        assert "Traceback" not in service.replicas.log()


async def test_the_signed_bytes_decide_chunked_deep_or_with_a_name_twice(sqlite_url: str, tmp_path: Path) -> None:
    twice = b'{"id":"evt_a","id":"evt_b","type":"generation.succeeded","data":{"id":"t","id":"u","status":"failed"}}'
    deep = b'{"id":"evt_deep","data":' + b"[" * 5000 + b"]" * 5000 + b"}"
    async with failing(sqlite_url, tmp_path) as service:
        for body in (twice, deep, b"", b"\xff\xfe", b'{"id":"evt_\\u0000","type":"\\ud800"}'):
            whole = _signed(body, service) + b"Content-Length: %d\r\n\r\n" % len(body) + body
            assert await _status(service, whole) == 200, body[:40]
        chunked = _signed(BODY, service) + b"Transfer-Encoding: chunked\r\n\r\n"
        halves = (BODY[:7], BODY[7:])
        chunked += b"".join(b"%x\r\n%s\r\n" % (len(half), half) for half in halves) + b"0\r\n\r\n"
        assert await _status(service, chunked) == 200
        spoilt = (
            _signed(twice, service) + b"Content-Length: %d\r\n\r\n" % len(twice) + twice.replace(b"evt_b", b"evt_c")
        )
        assert await _status(service, spoilt) == 401


async def test_hundreds_of_connections_that_crawl_or_fall_silent_hold_up_nobody(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with failing(sqlite_url, tmp_path) as service:
        await service.recovered()
        crawling = [await asyncio.open_connection("127.0.0.1", service.replicas.ports[0]) for _ in range(300)]
        beginnings = (POST, POST + b"Content-Length: 88\r\n\r\n{", b"")
        for number, (_, writer) in enumerate(crawling):
            writer.write(beginnings[number % 3])
        loop = asyncio.get_running_loop()
        started = loop.time()
        for _ in range(10):
            assert (await service.deliver()).status_code == 200
        assert loop.time() - started < 5
        for _, writer in crawling:
            writer.transport.abort()
        assert (await service.deliver()).status_code == 200


async def test_many_small_requests_from_one_who_reads_no_answer_take_no_memory(sqlite_url: str, tmp_path: Path) -> None:
    live = b"GET /livez HTTP/1.1\r\n\r\n"
    waiting = f"GET /api/v1/generations/task_q?wait=60 HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    missing = b"GET /api/v1/generations/none HTTP/1.1\r\n\r\n"
    async with failing(sqlite_url, tmp_path) as service:
        await service.recovered()
        assert (await service.client.put("/api/v1/generations/task_q", json={})).status_code == 201
        before = _resident(service)
        connections: list[socket.socket] = []
        for number in range(60):
            flood = (live * 4000, waiting + missing * 2000, missing * 2000)[number % 3]
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(("127.0.0.1", service.replicas.ports[0]))
            connection.setblocking(False)
            with suppress(BlockingIOError):
                connection.send(flood)
            connections.append(connection)
        for _ in range(5):
            assert (await service.deliver()).status_code == 200
        grown = _resident(service) - before
        for number, connection in enumerate(connections):
            if number % 2:
                connection.shutdown(socket.SHUT_WR)
            connection.close()
        assert (await service.deliver()).status_code == 200
        assert grown < 40, f"{grown:.0f} MiB for {len(connections)} connections"


def _resident(service: Failing) -> float:
    """MiB of the process's memory that are in RAM."""
    status = Path(f"/proc/{service.replicas.pids[service.replicas.ports[0]]}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))
