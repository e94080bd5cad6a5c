"""The gateway as a real HTTP server on loopback, before a Rivya of the test's, with one client for each role."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from app.api import errors, schemas
from app.core.auth import Access, ApiToken, Role
from app.core.database import Database
from app.gateway import routes
from app.gateway.models_cache import ModelsCache
from app.gateway.service import Balance, Gateway
from app.gateway.streaming import ConcurrencyLimit, ShutdownDeadline
from app.gateway.upstream import CallTimeouts, Kind, Relay, call_timeouts
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError
from app.tokens.spending import Spending
from tests.support.clock import ManualClock

KEY = "rvya_sk_sandbox"
TOKENS = {role: f"a-token-of-role-{role}" for role in Role}


@dataclass
class GatewayHarness:
    """What a test looks at."""

    app: FastAPI
    url: str
    rivya_url: str
    gateway: Gateway
    clients: dict[Role | None, httpx.AsyncClient]
    clock: ManualClock
    pauses: list[float] = field(default_factory=list)
    """Seconds waited before each retry; nobody really waits."""
    noted: list[RivyaError] = field(default_factory=list)

    @property
    def client(self) -> httpx.AsyncClient:
        """Whose token may write."""
        return self.clients[Role.WRITE]

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def note(self, error: RivyaError) -> None:
        self.noted.append(error)


@asynccontextmanager
async def open_gateway(
    rivya_url: str,
    *,
    concurrency: int = 100,
    is_shared: bool = False,
    ttl: timedelta = timedelta(minutes=5),
    timeouts: dict[Kind, CallTimeouts] | None = None,
) -> AsyncIterator[GatewayHarness]:
    """The gateway alone: no database, no loops."""
    async with AsyncExitStack() as stack:
        rivya = await stack.enter_async_context(RivyaClient(rivya_url, KEY))
        clock, app = ManualClock(), FastAPI()
        room = GatewayHarness(app, "", rivya_url, None, {}, clock)  # type: ignore[arg-type]
        usual = call_timeouts(chat=timedelta(seconds=30), stream=timedelta(seconds=30))
        relay = Relay(rivya, timeouts={**usual, **(timeouts or {})}, on_rate_limit=room.note, pause=room.pause)
        models_cache = ModelsCache(relay, clock, ttl=ttl)
        access = Access([ApiToken.of(f"{role}er", role, token) for role, token in TOKENS.items()])
        limit, balance = ConcurrencyLimit(concurrency, is_shared=lambda: is_shared), Balance(clock)
        # Never opened: these tokens have no limits.
        spending = Spending(Database("sqlite+aiosqlite:///none.db"), clock, price=models_cache.price, default_credits=1)
        room.gateway = Gateway(relay, limit, models_cache, balance, access, spending, ShutdownDeadline(grace=0.1))
        stack.push_async_callback(models_cache.aclose)
        errors.install(app)
        app.include_router(routes.router(room.gateway, access), responses=schemas.errors(400, 404, 413))
        schemas.complete(app)
        room.url = await stack.enter_async_context(_serving(app))
        for role in (*Role, None):
            room.clients[role] = await stack.enter_async_context(_client(room.url, role))
        yield room


def _client(url: str, role: Role | None) -> httpx.AsyncClient:
    headers = {} if role is None else {"Authorization": f"Bearer {TOKENS[role]}"}
    return httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=20)


@asynccontextmanager
async def _serving(app: Any) -> AsyncIterator[str]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http="httptools", lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # Not as a server stops that has callers: nobody is left, and its own way waits a tenth of a second.
        for accepting in server.servers:
            accepting.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        for task in list(server.server_state.tasks):
            task.cancel()
        await asyncio.gather(*server.server_state.tasks, return_exceptions=True)
