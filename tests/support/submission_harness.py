"""Submission put together as the service does it, in front of a real sandbox Rivya."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
from fastapi import FastAPI, Request, Response
from sqlalchemy import select

from app.api.schemas import ErrorOut, GenerationOut
from app.core.auth import Access, ApiToken, Role
from app.core.errors import ServiceError
from app.core.waiters import Waiters, until_set
from app.ledger.callbacks import Callbacks
from app.ledger.recorder import BatchRecorder
from app.ledger.tables import generations
from app.ledger.write_queue import WriteQueue
from app.ratelimit.limiter import RateLimiter
from app.rivya.client import Deadlines, RivyaClient
from app.rivya.errors import RivyaError
from app.sandbox.accounts import DEFAULT_KEY
from app.sandbox.server import serve_sandbox
from app.sandbox.state import Sandbox
from app.submission.routes import router
from app.submission.sender import Retrier, Sender
from app.submission.service import Pause, SubmissionService
from app.submission.store import SubmissionRepository, submissions
from tests.support.api_harness import check_callback
from tests.support.clock import ManualClock
from tests.support.ledger_harness import LedgerHarness, open_ledger

BODY = b'{"model": "z-image",  "prompt": "A lighthouse", "client_request_id": "order-1"}'
LEASE_SECONDS = 61.0


@dataclass
class Budget(RateLimiter):
    """A rate limiter whose answers a test decides."""

    left: int = 1000
    noted: list[RivyaError] = field(default_factory=list)
    successes: int = 0

    async def acquire(self) -> bool:
        self.left -= 1
        return self.left >= 0

    async def record_error(self, error: RivyaError) -> None:
        self.noted.append(error)

    async def record_success(self) -> None:
        self.successes += 1


@dataclass
class SubmissionHarness:
    room: LedgerHarness
    sandbox: Sandbox
    clock: ManualClock
    batch: WriteQueue
    service: SubmissionService
    retrier: Retrier
    budget: Budget
    app: FastAPI
    client: httpx.AsyncClient

    async def create(
        self, body: bytes = BODY, *, key: str | None = "key-1", as_role: str = "write", callback: str | None = None
    ) -> httpx.Response:
        given = {
            "Authorization": f"Bearer {as_role}-token",
            "Idempotency-Key": key,
            "Receiver-Callback-Url": callback,
        }
        headers = {name: value for name, value in given.items() if value is not None}
        return await self.client.post("/api/v1/generations", content=body, headers=headers)

    async def submission(self) -> dict[str, Any]:
        async with self.room.database.read() as connection:
            [row] = (await connection.execute(select(submissions))).mappings()
        return dict(row)

    async def generation(self) -> dict[str, Any]:
        [row] = await self.room.rows(generations)
        return row

    @property
    def calls(self) -> int:
        return self.sandbox.calls.counts["generations.create"]

    def charged(self, key: str = "key-1") -> int:
        times: int = self.sandbox.accounts.charges_by_key().get(key, {"times": 0})["times"]
        return times

    @property
    def waiting(self) -> int:
        """How many creates wait for one that is under way."""
        return self.service._waiters.count

    async def abandon(self) -> None:
        """What a killed process leaves: whatever was committed, and nothing else."""
        for task in list(self.service._tasks):
            task.cancel()
        await asyncio.gather(*self.service._tasks, return_exceptions=True)


async def eventually(is_so: Callable[[], bool]) -> None:
    """Let others run until it is so."""
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0)


async def until_woken(event: asyncio.Event, _seconds: float) -> None:
    """A pause for those who must not need to look."""
    async with asyncio.timeout(20):
        await event.wait()


def code_of(answer: httpx.Response) -> str:
    code: str = answer.json()["error"]["code"]
    return code


@asynccontextmanager
async def serve_manually() -> AsyncIterator[tuple[Sandbox, str]]:
    """A Rivya in which nothing happens by itself."""
    async with serve_sandbox(Sandbox(manual=True)) as served:
        yield served.sandbox, served.base_url


@asynccontextmanager
async def open_submission(
    url: str,
    rivya: tuple[Sandbox, str],
    *,
    clock: ManualClock | None = None,
    pause: Pause = until_set,
    deadline: float = 20.0,
    most_at_once: int = 100,
    recorder: BatchRecorder | None = None,
    makes_callbacks: bool = True,
) -> AsyncIterator[SubmissionHarness]:
    """One process of the service, as far as submission goes."""
    sandbox, base_url = rivya
    clock = clock or ManualClock()
    async with AsyncExitStack() as stack:
        room = await stack.enter_async_context(open_ledger(url))
        rivya_client = await stack.enter_async_context(
            RivyaClient(base_url, DEFAULT_KEY, deadlines=Deadlines(create=deadline))
        )
        batch = WriteQueue(recorder or room.ledger, clock)
        await batch.start()
        stack.push_async_callback(batch.stop)
        waiters, budget, store = Waiters(), Budget(), SubmissionRepository(room.database)
        sender = Sender(rivya_client, batch, store, clock, waiters=waiters, jitter=lambda: 0)
        service = SubmissionService(
            store, sender, budget, clock, waiters=waiters, pause=pause, most_at_once=most_at_once
        )
        stack.push_async_callback(service.stop)
        app = _app(service, Callbacks(room.database, clock, check=check_callback if makes_callbacks else None))
        client = await stack.enter_async_context(
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://receiver")
        )
        retrier = Retrier(store, sender, budget, clock)
        yield SubmissionHarness(room, sandbox, clock, batch, service, retrier, budget, app, client)


def _app(service: SubmissionService, callbacks: Callbacks) -> FastAPI:
    tokens = [
        ApiToken.of("shop", Role.WRITE, "write-token"),
        ApiToken.of("studio", Role.WRITE, "other-token"),
        ApiToken.of("viewer", Role.READ, "read-token"),
    ]
    app = FastAPI()
    app.include_router(router(service, Access(tokens), callbacks, created=GenerationOut, error=ErrorOut))
    app.add_exception_handler(ServiceError, _render)
    return app


async def _render(_: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    body = {"error": {"code": error.code, "message": error.message, "requestId": "req_test"}}
    return Response(orjson.dumps(body), error.status, media_type="application/json")
