"""One service behind two servers, with and without RECEIVER_FAST_PATH: what is sent to both."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from app.cli.server import Server, listen, make_server
from app.core.auth import Role
from app.core.settings import load
from app.main import Service
from app.rivya.schemes import parse_scheme
from app.rivya.signature import sign
from tests.support.asgi_service import TOKENS
from tests.support.intake_harness import SECRET, event
from tests.support.receivers import environment

NOBODY = "http://127.0.0.1:1"
PATIENCE = 1.5
"""Seconds without a byte after which a server is taken to wait for more of what is not whole."""
_WHOLE = 30.0
LAST = b"GET /nowhere HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n"
"""Ends a connection on which everything before it was whole."""
_OURS = re.compile(rb"req_[0-9a-f]+")
_TIMES = re.compile(rb'"(receivedAt|offsetSeconds|signedAt)":[^,}]+')


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, without what differs from request to request."""

    status: int
    headers: tuple[bytes, ...]
    body: bytes


@dataclass
class ServerPair:
    service: Service
    fast: Server
    plain: Server
    ports: tuple[int, int]

    async def agree(self, *pieces: bytes, ends: float = _WHOLE) -> list[Answer]:
        """What both answer to these bytes in these pieces. Raises AssertionError where they differ.

        `ends`: within so many seconds of silence the connection ends, or it is taken to wait for more.

        What the parser refuses ends the connection at once, and with it answers that are still under way; how many
        depends on chance, so then those that did come are compared.
        """
        fast, plain = await asyncio.gather(*(exchange(port, pieces, ends) for port in self.ports))
        if fast != plain and ends < _WHOLE:  # one of them may have been silent because this machine was busy
            fast, plain = await asyncio.gather(*(exchange(port, pieces, _WHOLE) for port in self.ports))
        if _is_cut(fast) and _is_cut(plain):
            common = min(len(fast), len(plain)) - 1
            assert fast[:common] == plain[:common], (pieces, fast, plain)
        else:
            assert fast == plain, (pieces, fast, plain)
        return fast


def _is_cut(answers: Sequence[Answer]) -> bool:
    return bool(answers) and answers[-1].body == b"Invalid HTTP request received."


@asynccontextmanager
async def server_pair(monkeypatch: pytest.MonkeyPatch, url: str, **changes: str) -> AsyncIterator[ServerPair]:
    """Both, ready, with the generation `task_0` in the record; for uvloop, without anyio. `changes`: settings."""
    listeners = [listen("127.0.0.1", 0) for _ in range(2)]
    ports = listeners[0].getsockname()[1], listeners[1].getsockname()[1]
    tokens = ",".join(f"{role}:{role}:{token}" for role, token in TOKENS.items())
    by_hand = {"RIVYA_SIGNING_SECRET": SECRET, "RIVYA_SIGNATURE_SCHEME": "timestamped"}
    for name, value in environment(NOBODY, url, ports[0], RECEIVER_API_TOKENS=tokens, **by_hand, **changes).items():
        monkeypatch.setenv(name, value)
    service = Service(load())
    fast = make_server(service)
    service.settings = service.settings.model_copy(update={"receiver_fast_path": False})
    both = fast, make_server(service)
    for server in both:
        server.config.lifespan = "off"
    await service.prepare()
    await service.batch.start()
    serving = [
        asyncio.create_task(server._serve(sockets=[listener])) for server, listener in zip(both, listeners, strict=True)
    ]
    try:
        pair = ServerPair(service, *both, ports)
        assert [answer.status for answer in await pair.agree(delivery("task_0") + LAST)] == [200, 404]
        yield pair
    finally:
        for server in both:
            server.should_exit = True
        await asyncio.gather(*serving)
        await service.batch.stop()
        await service.close()


def delivery(
    generation_id: str = "task_0",
    *,
    body: bytes | None = None,
    head: str = "POST /rivya/webhook HTTP/1.1",
    extra: str = "",
    sent: bytes | None = None,
    length: str | None = None,
    late: float = 0,
) -> bytes:
    """A signed delivery; `sent` is another body than was signed, with its framing if `length` is empty."""
    body = event(generation_id, event_id=f"evt_{generation_id}") if body is None else body
    at = datetime.now(UTC) - timedelta(seconds=late)
    [(name, value)] = sign(parse_scheme("timestamped"), SECRET, body, timestamp=at, event_id="")
    sent = body if sent is None else sent
    framing = f"Content-Length: {len(sent) if length is None else length}\r\n" if length != "" else ""
    return f"{head}\r\nHost: r\r\n{extra}{framing}{name}: {value}\r\n\r\n".encode("latin-1") + sent


def read(
    path: str = "/api/v1/generations/task_0",
    *,
    method: str = "GET",
    version: str = "HTTP/1.1",
    token: str = TOKENS[Role.READ],
    extra: str = "",
) -> bytes:
    """A read by id, or something like it."""
    line = f"{method} {path} {version}".strip()
    return f"{line}\r\nHost: r\r\nAuthorization: Bearer {token}\r\n{extra}\r\n".encode("latin-1")


def chunked(body: bytes, *, size: int = 7) -> bytes:
    """A body in chunks."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


async def exchange(port: int, pieces: Sequence[bytes], ends: float = _WHOLE) -> list[Answer]:
    """What the server at this port answers, until it ends the connection or is silent for `ends` seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = bytearray()
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)  # the servers run in this loop: they read what has come
            await asyncio.sleep(0)
        while data := await asyncio.wait_for(reader.read(65536), ends):
            heard += data
    except (TimeoutError, ConnectionError):
        pass  # it waits for more, or it has cut the connection
    finally:
        writer.transport.abort()
    return _parsed(bytes(heard))


def _parsed(heard: bytes) -> list[Answer]:
    answers: list[Answer] = []
    while heard:
        head, separator, rest = heard.partition(b"\r\n\r\n")
        assert separator, heard
        line, *lines = head.split(b"\r\n")
        length = next((int(each[15:]) for each in lines if each.lower().startswith(b"content-length:")), 0)
        is_sent_back = lines and not _is_to_head(line, lines, rest, length)
        body, heard = (rest[:length], rest[length:]) if is_sent_back else (b"", rest)
        compared_headers = sorted(_OURS.sub(b"req", each.lower()) for each in lines)
        answers.append(Answer(int(line[9:12]), tuple(compared_headers), _comparable(body)))
    return answers


def _is_to_head(line: bytes, lines: Sequence[bytes], rest: bytes, length: int) -> bool:
    """An answer to HEAD tells the length of what it does not send."""
    return length > 0 and (not rest or rest.startswith(b"HTTP/1.1 ")) and bool(line and lines)


def _comparable(body: bytes) -> bytes:
    body = _TIMES.sub(rb'"\1":0', _OURS.sub(b"req", body))
    return orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS) if body.startswith(b"{") else body
