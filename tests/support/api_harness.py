"""The API on a real ledger, with one client for each role; a test records reports and looks over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
from fastapi import FastAPI

from app.api import deliveries, errors, events, generations, health, metrics, schemas, usage
from app.api.schemas import TAGS, description
from app.api.waiting import Waiting
from app.core.auth import Access, ApiToken, Role
from app.core.clock import SystemClock
from app.core.errors import HealthCheck
from app.core.urls import AllowList, parse_target
from app.fastpath.application import GENERATIONS, FastGenerationRead, FastPathApp
from app.ledger.callbacks import Callbacks
from app.ledger.feed import Feed, FeedTail
from app.ledger.models import Generation, LedgerStats, Report
from app.ledger.queries import Queries
from app.ledger.write_queue import WriteQueue
from tests.support.clock import ManualClock
from tests.support.http_paths import HttpPath, ServedApp, serve_app
from tests.support.ledger_harness import LedgerHarness, open_ledger

TOKENS = {role: f"a-token-of-role-{role}" for role in Role}
Check = Callable[[], Awaitable[Sequence[HealthCheck]]]


class CountedQueries(Queries):
    """The reads, with a count of those by id and of looks for settled ones."""

    reads = 0
    looks = 0
    stats_read = 0

    async def describe_status(self, now: datetime) -> LedgerStats:
        self.stats_read += 1
        return await super().describe_status(now)

    async def generations_by_id(self, ids: Sequence[str]) -> dict[str, Generation]:
        generations_by_id = await super().generations_by_id(ids)
        self.reads += 1
        return generations_by_id

    async def settled_among(self, ids: Sequence[str]) -> list[str]:
        self.looks += 1
        return await super().settled_among(ids)


async def check_callback(url: str) -> None:
    """Whether this URL may be called, by its text alone: no name is resolved."""
    parse_target(url, AllowList())


@dataclass
class ApiHarness:
    room: LedgerHarness
    app: FastAPI
    queries: CountedQueries
    waiting: Waiting
    tail: FeedTail
    access: Access
    clock: ManualClock
    readiness: health.Readiness
    clients: dict[Role | None, httpx.AsyncClient]

    @property
    def client(self) -> httpx.AsyncClient:
        """Whose token may only read."""
        return self.clients[Role.READ]

    @property
    def writer(self) -> httpx.AsyncClient:
        return self.clients[Role.WRITE]

    @property
    def admin(self) -> httpx.AsyncClient:
        return self.clients[Role.ADMIN]

    @property
    def stranger(self) -> httpx.AsyncClient:
        """Who has no token."""
        return self.clients[None]

    async def record(self, *reports: Report) -> None:
        await self.room.ledger.record(reports)

    async def parked(self, answers: int = 1) -> None:
        """Until that many callers have looked once and wait: no look of theirs is under way any more."""
        await eventually(lambda: self.waiters() == answers and not self.waiting.reads._tasks)

    async def parked_in_feed(self, followers: int = 1) -> None:
        """Until that many wait for events, and the end of the feed is known."""
        await eventually(lambda: self.followers() == followers and (self.tail._recent is not None or not followers))
        for _ in range(100):
            await asyncio.sleep(0)

    def followers(self) -> int:
        return self.tail._followers.count

    def waiters(self) -> int:
        return self.room.changes.count


async def eventually(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0)


@asynccontextmanager
async def open_api(
    url: str, *, checks: Sequence[Check] = (), http: HttpPath | None = None, makes_callbacks: bool = True
) -> AsyncIterator[ApiHarness]:
    """`http`: behind a server; None: the clients call the application."""
    async with open_ledger(url) as room, AsyncExitStack() as stack:
        batch = WriteQueue(room.ledger, SystemClock())
        await batch.start()
        stack.push_async_callback(batch.stop)
        queries, clock = CountedQueries(room.database), ManualClock()
        waiting = Waiting(queries, room.changes)
        readiness = health.Readiness(room.database, checks, keep_seconds=0)
        tail = FeedTail(Feed(room.database), room.changes)
        access = Access([ApiToken.of(role, role, token) for role, token in TOKENS.items()])
        callbacks = Callbacks(room.database, clock, check=check_callback if makes_callbacks else None)
        app = assemble(queries, waiting, tail, access, batch, callbacks, clock=clock, readiness=readiness)
        served = await stack.enter_async_context(serve_app(app, http))
        clients = {role: await stack.enter_async_context(_client(served, role)) for role in (*Role, None)}
        yield ApiHarness(room, app, queries, waiting, tail, access, clock, readiness, clients)


def assemble(
    queries: Queries,
    waiting: Waiting,
    tail: FeedTail,
    access: Access,
    batch: WriteQueue,
    callbacks: Callbacks,
    *,
    clock: ManualClock,
    readiness: health.Readiness,
) -> FastPathApp:
    app = FastPathApp(title="rivya-receiver", description=description(), openapi_tags=TAGS)
    errors.install(app)
    schemas.complete(app)
    app.add_fast_route(GENERATIONS, handler=FastGenerationRead(waiting, access))
    app.include_router(generations.router(queries, access, waiting, batch.record, callbacks, clock=clock))
    app.include_router(events.router(tail.feed, tail, access, max_wait=20))
    app.include_router(deliveries.router(queries, access))
    app.include_router(usage.router(queries, access, clock=clock))
    app.include_router(health.router(readiness, access))
    app.include_router(metrics.router(queries, access, clock=clock))
    return app


def _client(served: ServedApp, role: Role | None) -> httpx.AsyncClient:
    return served.client(**({"Authorization": f"Bearer {TOKENS[role]}"} if role is not None else {}))


def ids(answer: httpx.Response, key: str = "id") -> list[Any]:
    """What a list holds."""
    assert answer.status_code == 200, answer.text
    return [item[key] for item in answer.json()["data"]]


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code, of an error in Rivya's shape."""
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "requestId"}
    assert error["requestId"] == answer.headers["x-request-id"]
    return answer.status_code, error["code"]
