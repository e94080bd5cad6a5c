"""A whole service before a Rivya that lies on every route: its loops turn on a clock that tests move by hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
from sqlalchemy import Table

from app.core.settings import load
from app.ledger.tables import generations
from app.main import Service
from app.rivya.client import Deadlines
from app.sandbox.accounts import DEFAULT_KEY
from app.sandbox.delivery import DeliveryClient
from app.sandbox.server import serve_sandbox
from app.sandbox.state import Sandbox
from app.submission.store import submissions
from tests.support.faulty_provider_metrics import Posted
from tests.support.polling_harness import PacedClock
from tests.support.receivers import TOKEN, environment
from tests.support.rows import table_rows

GRACE, INTERVAL = timedelta(seconds=60), timedelta(seconds=10)
PATIENT = Deadlines()
HURRIED = Deadlines(status=0.25, create=0.25, manage=0.25)
"""While a call hangs: that is real time, and the only real time here."""
LONGEST_STEP = 60.0


class OtherClock:
    """Rivya's: the same seconds, another time of day."""

    def __init__(self, clock: PacedClock) -> None:
        self._clock = clock
        self.ahead = 0.0

    def now(self) -> datetime:
        return self._clock.now() + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        return self._clock.monotonic()


@dataclass
class IntoService(DeliveryClient):
    """What carries the sandbox's deliveries, without a socket between; a second on their way, each."""

    client: httpx.AsyncClient
    clock: PacedClock
    theirs: OtherClock
    posted: list[Posted] = field(default_factory=list)

    async def post(self, url: str, body: bytes, *, headers: dict[str, str], timeout_seconds: float) -> int:
        """The status of intake's answer."""
        self.clock.advance(seconds=1)
        answer = await self.client.post(urlsplit(url).path, content=body, headers=headers)
        self.posted.append(Posted(body, answer.status_code, self.clock.monotonic(), self.theirs.ahead))
        return answer.status_code

    async def close(self) -> None:
        """Nothing to close."""


@dataclass
class FaultyProviderService:
    """The sandbox's own state is what really happened, whatever it said."""

    service: Service
    sandbox: Sandbox
    clock: PacedClock
    theirs: OtherClock
    carrier: IntoService
    client: httpx.AsyncClient
    keys: int = 0
    hurts: int = 0
    lost: list[str] = field(default_factory=list)
    ended_at: dict[str, float] = field(default_factory=dict)
    """When each generation really ended, in seconds."""

    async def create(self) -> httpx.Response:
        """A caller's create, under a key of its own."""
        self.keys += 1
        headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": f"key-{self.keys}"}
        body = {"model": "z-image", "prompt": "a fox"}
        return await self.client.post("/api/v1/generations", json=body, headers=headers)

    async def end(self, generation_id: str, status: Any = "succeeded") -> None:
        """It really ends now; its callback fares as it may."""
        self.clock.advance(seconds=0.01)  # later than any poll that still found it open
        self.ended_at[generation_id] = self.clock.monotonic()
        await self.sandbox.settle(generation_id, status)

    def opened(self) -> list[str]:
        """Those that Rivya still works on, oldest first."""
        return [known.id for known in self.sandbox.generations.by_id.values() if not known.is_terminal]

    async def run_once(self) -> None:
        """Every loop once, as they would be turned when their time has come."""
        service = self.service
        await self.clock.run(self._turned(service))

    async def _turned(self, service: Service) -> None:
        for part in (service.reconciler, service.keyring, service.endpoint_health):
            await part.run_once()
        await service.categories.run_once()
        await service.retrier.run_once()
        await service.poller.run_once()
        await service.poller.idle()
        await service.endpoint_health.run_once()

    async def wait(self, seconds: float) -> None:
        """Let time pass: everything that falls due in it is done in its turn."""
        until = self.clock.now() + timedelta(seconds=seconds)
        while (now := self.clock.now()) < until:
            step = min((until - now).total_seconds(), max(await self._next_due() - now.timestamp(), 1.0), LONGEST_STEP)
            self.clock.advance(seconds=step)
            await self.sandbox.advance(step)
            await self.run_once()

    async def _next_due(self) -> float:
        polls = [row["next_poll_at"] for row in await self.rows(generations) if row["next_poll_at"] is not None]
        sends = [row["next_attempt_at"] for row in await self.rows(submissions) if row["next_attempt_at"] is not None]
        return min((due_at.timestamp() for due_at in (*polls, *sends)), default=float("inf"))

    async def rows(self, table: Table) -> list[dict[str, Any]]:
        """All that is in the table."""
        return await table_rows(self.service.database, table)

    def be_hurried(self, deadlines: Deadlines) -> None:
        """How long our client waits for Rivya from now on."""
        self.service.client.deadlines = deadlines

    def ours(self) -> list[Any]:
        """What is registered at Rivya."""
        return list(self.sandbox.endpoints.by_id.values())

    def hurt(self, how: str) -> None:
        """Somebody disables or deletes our endpoint at Rivya; thrice at most, or we would rightly hold still for it."""
        active = [known for known in self.ours() if known.status == "active"]
        if not active or self.hurts >= 3:
            return
        self.hurts += 1
        if how == "deleted":
            self.sandbox.endpoints.remove(active[0])
        else:
            active[0].set_status("disabled", self.theirs.now())

    async def is_all_known(self) -> bool:
        """Nothing is open in our record, and no create without an answer is left."""
        is_open = any(row["next_poll_at"] is not None for row in await self.rows(generations))
        return not is_open and all(row["next_attempt_at"] is None for row in await self.rows(submissions))

    def count_not_found(self, generation_id: str) -> int:
        """How often Rivya said that there is no such generation."""
        log = self.sandbox.calls.of("generations.get")
        return sum(called.status == 404 and called.path.endswith(generation_id) for called in log)

    def revoke(self, *, is_revoked: bool) -> None:
        """Somebody revokes our key, or restores it."""
        self.sandbox.keys[DEFAULT_KEY].revoked = is_revoked


@asynccontextmanager
async def faulty_provider_service(url: str) -> AsyncIterator[FaultyProviderService]:
    """The service as `create_app` makes it; only time and the way of the deliveries are the test's."""
    clock = PacedClock()
    theirs = OtherClock(clock)
    async with AsyncExitStack() as stack:
        sandbox = Sandbox(manual=True, clock=theirs)
        served = await stack.enter_async_context(serve_sandbox(sandbox))
        wanted = environment(served.base_url, url, 1, RECEIVER_MIGRATE_ON_START="false", RECEIVER_POLL_RATE="100")
        wanted |= {"RECEIVER_POLL_GRACE": str(GRACE.seconds), "RECEIVER_POLL_INTERVAL": str(INTERVAL.seconds)}
        service = Service(load(**{name.lower(): value for name, value in wanted.items()}), clock)
        service.readiness.keep_seconds = 0
        stack.push_async_callback(service.close)
        service.limiter._pause = clock.pause
        clock.stands_still_while.append(lambda: service.poller.asking + service.poller.connecting > 0)
        service.verification.seconds_in_doubt = 0.05
        await service.batch.start()
        stack.push_async_callback(service.batch.stop)
        transport = httpx.ASGITransport(service.app)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://receiver"))
        carrier = IntoService(client, clock, theirs)
        sandbox.sender.client = carrier
        await service.keyring.load()
        provider = FaultyProviderService(service, sandbox, clock, theirs, carrier, client)
        await provider.wait(5)
        yield provider
        await asyncio.wait_for(service.poller.stop(), 10)
