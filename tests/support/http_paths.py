"""An application on a socket of this event loop, behind the protocols of RECEIVER_FAST_PATH=true and =false."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

from app.fastpath.application import FastPathApp
from app.fastpath.connections import BoundedProtocol, ConnectionLimits
from app.fastpath.protocol import FastPathProtocol


class HttpPath(StrEnum):
    FAST = "fast path"
    PLAIN = "plain"


on_both_paths = pytest.mark.parametrize("http", HttpPath)
"""For tests of what the two hot routes take and answer; the others need no server."""


class CountedTasks(set[asyncio.Task[None]]):
    """The tasks of a server, and how many there ever were."""

    ever = 0

    def add(self, task: asyncio.Task[None]) -> None:
        self.ever += 1
        super().add(task)


@dataclass
class ServedApp:
    """What a client needs to call an application."""

    url: str = "http://receiver"
    transport: httpx.AsyncBaseTransport | None = None
    tasks: CountedTasks = field(default_factory=CountedTasks)
    """Those that requests needed."""

    def client(self, **headers: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, transport=self.transport, headers=headers, timeout=30)


@asynccontextmanager
async def serve_app(app: FastPathApp, path: HttpPath | None) -> AsyncIterator[ServedApp]:
    """`app` on a socket; without a `path` it is called without one."""
    if path is None:
        yield ServedApp(transport=httpx.ASGITransport(app))
        return
    config = uvicorn.Config(app, lifespan="off", log_config=None, proxy_headers=False)
    state, served = ServerState(), ServedApp()
    state.tasks = served.tasks
    protocol = FastPathProtocol if path is HttpPath.FAST else BoundedProtocol
    make = partial(protocol, config=config, server_state=state, app_state={}, limits=ConnectionLimits(1000))
    # The kernel drops what connects beyond the backlog, and a client that is dropped tries again seconds later.
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0, backlog=2048)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        server.close()
        while state.connections or served.tasks:
            for connection in state.connections:
                connection.transport.abort()
            await asyncio.sleep(0)
        await server.wait_closed()
