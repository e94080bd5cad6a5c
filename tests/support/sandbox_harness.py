"""A served sandbox, a client of it, and an HTTP server that keeps what the sandbox delivers, to the byte."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from app.sandbox.clock import Clock
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.sandbox.signing import Scheme
from app.sandbox.state import Sandbox


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    headers: dict[str, str]
    body: bytes
    path: str = ""

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = orjson.loads(self.body)
        return event


@dataclass
class Inbox:
    """Answers each request with the next status of `answers`, then with 200."""

    received: list[Received] = field(default_factory=list)
    answers: deque[int] = field(default_factory=deque)
    url: str = ""

    @property
    def ids(self) -> list[str]:
        return [request.event["id"] for request in self.received]

    @property
    def types(self) -> list[str]:
        return [request.event["type"] for request in self.received]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = [line.partition(":") for line in head.split("\r\n")[1:] if line]
        headers = {name.lower(): value.strip() for name, _, value in fields}
        body = await reader.readexactly(int(headers["content-length"]))
        self.received.append(Received(headers, body, head.split(" ")[1]))
        status = self.answers.popleft() if self.answers else 200
        location = f"Location: {self.url}/elsewhere\r\n" if status == 302 else ""
        writer.write(f"HTTP/1.1 {status} X\r\n{location}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@dataclass(frozen=True)
class World:
    """A served sandbox, a client with its default key, and an inbox."""

    sandbox: Sandbox
    client: httpx.AsyncClient
    inbox: Inbox

    async def register(self, **members: Any) -> dict[str, Any]:
        """An endpoint that delivers into the inbox."""
        body = {"name": "test", "url": self.inbox.url, **members}
        endpoint: dict[str, Any] = (await self.client.post("/api/v1/webhooks", json=body)).json()
        return endpoint

    async def create(self, **options: Any) -> str:
        """The id of a new generation with these options in `params.sandbox`."""
        body = {"model": "z-image", "prompt": "a fox", "params": {"sandbox": options}}
        generation_id: str = (await self.client.post("/api/v1/generations", json=body)).json()["id"]
        return generation_id


@contextlib.asynccontextmanager
async def open_inbox() -> AsyncIterator[Inbox]:
    """An inbox that listens."""
    inbox = Inbox()
    async with await asyncio.start_server(inbox.answer, "127.0.0.1", 0) as server:
        inbox.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        yield inbox


@contextlib.asynccontextmanager
async def world(settings: SandboxSettings | None = None, *, clock: Clock | None = None) -> AsyncIterator[World]:
    """All three, in manual mode: the sandbox does nothing by itself."""
    async with (
        open_inbox() as inbox,
        serve_sandbox(Sandbox(manual=True, settings=settings, clock=clock)) as rivya,
        httpx.AsyncClient(
            base_url=rivya.base_url, headers={"Authorization": "Bearer rvya_sk_sandbox"}, trust_env=False
        ) as client,
    ):
        yield World(rivya.sandbox, client, inbox)


def standard_webhooks(prefix: str = "webhook-") -> Scheme:
    """The scheme of the Standard Webhooks specification: base64, with the decoded secret as the key."""
    return Scheme(
        family="standard",
        signature_header=f"{prefix}signature",
        timestamp_header=f"{prefix}timestamp",
        id_header=f"{prefix}id",
        encoding="base64",
        key_form="base64",
    )
