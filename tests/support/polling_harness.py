"""Pollers on a database of the test's, against a real sandbox over HTTP, on a clock that tests move by hand."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import Table, update

from app.core.database import Database
from app.ledger.recorder import Changes, Recorder
from app.ledger.tables import generations, polls
from app.ledger.write_queue import WriteQueue
from app.polling.claims import Claims
from app.polling.poller import Poller
from app.polling.schedule import Categories, Schedule
from app.ratelimit.budget import polls_at_once
from app.ratelimit.limiter import RateLimiter
from app.rivya.client import Deadlines, RivyaClient
from app.sandbox.accounts import DEFAULT_KEY
from app.sandbox.server import serve_sandbox
from app.sandbox.state import Sandbox
from tests.support.clock import ManualClock
from tests.support.reports import submit
from tests.support.rows import table_rows

GRACE = timedelta(seconds=60)
SCHEDULE = Schedule(grace=GRACE)
PATIENT = Deadlines(status=60)
"""A busy machine is not an answer that takes too long."""
IMPATIENT = Deadlines(status=0.5)

_Result = TypeVar("_Result")


class PacedClock(ManualClock):
    """Lets others pause on it: they go on when the test has moved it far enough. Requests take no time on it."""

    def __init__(self) -> None:
        super().__init__()
        self.stands_still_while: list[Callable[[], bool]] = []
        self._pausing: list[tuple[float, asyncio.Event]] = []

    async def pause(self, seconds: float) -> None:
        """Return when the clock has been moved this far."""
        woken = asyncio.Event()
        self._pausing.append((self.monotonic() + seconds, woken))
        await woken.wait()

    async def run(self, work: Coroutine[Any, Any, _Result] | asyncio.Task[_Result]) -> _Result:
        """Do `work`, moving on to the moment that the next one pauses for whenever there is one."""
        task = asyncio.ensure_future(work)
        while not task.done():
            self._move_to_next()
            await asyncio.sleep(0)
        return task.result()

    def _move_to_next(self) -> None:
        if not self._pausing or any(is_busy() for is_busy in self.stands_still_while):
            return
        self._pausing.sort(key=lambda entry: entry[0])
        until, woken = self._pausing.pop(0)
        self.advance(seconds=max(until - self.monotonic(), 0))
        woken.set()


class Replica:
    """One process: its own connections, key and poller."""

    def __init__(
        self,
        url: str,
        rivya: RivyaClient,
        clock: PacedClock,
        *,
        key: str,
        schedule: Schedule,
        rate: float,
        most_at_once: int | None,
        most_ahead: int | None,
    ) -> None:
        self.database = Database(url)
        self.clock = clock
        self.callbacks_expected = True
        self.limiter = RateLimiter(self.database, clock, rate=rate, api_key=key, pause=clock.pause, chance=lambda: 0.0)
        self.categories = Categories(rivya.models, self.limiter, clock)
        self.schedule = replace(
            schedule,
            category_of=self.categories.of,
            callbacks_expected=lambda: self.callbacks_expected,
            chance=lambda: 0.5,
        )
        self.ledger = Recorder(self.database, first_poll=self.schedule.first_poll, changes=Changes())
        self.batch = WriteQueue(self.ledger, clock)
        self.poller = Poller(
            self.database,
            rivya,
            self.batch,
            schedule=self.schedule,
            limiter=self.limiter,
            clock=clock,
            most=None if most_at_once is None else (most_at_once, most_ahead or 0),
            grace=0.0,
        )
        self.claims = Claims(self.database, self.limiter)
        clock.stands_still_while.append(lambda: self.poller.asking + self.poller.connecting > 0)

    async def poll(self) -> None:
        """One turn, and all that it started."""
        await self.poller.run_once()
        await self.clock.run(self.poller.idle())

    async def rows(self, table: Table) -> list[dict[str, Any]]:
        """All that is in the table."""
        return await table_rows(self.database, table)

    async def row(self, generation_id: str) -> dict[str, Any]:
        """The generation as it is recorded."""
        return next(row for row in await self.rows(generations) if row["id"] == generation_id)

    async def wait_until_due(self, generation_id: str) -> float:
        """Move the clock to the generation's next poll; returns the seconds it took."""
        row = await self.row(generation_id)
        waited: float = (row["next_poll_at"] - self.clock.now()).total_seconds()
        self.clock.advance(seconds=max(waited, 0))
        return waited

    async def make_due(self) -> None:
        """Have every open generation due now."""
        async with self.database.transaction() as connection:
            open_ones = update(polls).where(polls.c.next_poll_at.is_not(None))
            await connection.execute(open_ones.values(next_poll_at=self.clock.now(), lease_until=None))


class PollingHarness:
    """A sandbox Rivya, and any number of replicas on one database."""

    def __init__(self, url: str, sandbox: Sandbox, clock: PacedClock, *, base_url: str, stack: AsyncExitStack) -> None:
        self.url = url
        self.sandbox = sandbox
        self.clock = clock
        self._base_url = base_url
        self._stack = stack

    async def replica(
        self,
        *,
        key: str = DEFAULT_KEY,
        schedule: Schedule = SCHEDULE,
        rate: float = 5.0,
        most_at_once: int | None = None,
        most_ahead: int | None = None,
        deadlines: Deadlines = PATIENT,
    ) -> Replica:
        """One more process."""
        client = RivyaClient(self._base_url, key, deadlines=deadlines, polls=most_at_once or polls_at_once(rate))
        await self._stack.enter_async_context(client)
        replica = Replica(
            self.url,
            client,
            self.clock,
            key=key,
            schedule=schedule,
            rate=rate,
            most_at_once=most_at_once,
            most_ahead=most_ahead,
        )
        await replica.batch.start()
        self._stack.push_async_callback(replica.database.dispose)
        self._stack.push_async_callback(replica.batch.stop)
        return replica

    async def generate(self, count: int = 1, *, model: str = "z-image") -> list[str]:
        """Generations that Rivya works on and we have not heard of."""
        bodies = [{"model": model, "prompt": "a river"} for _ in range(count)]
        return [(await self.sandbox.generations.create("default", body, key=None))["id"] for body in bodies]

    async def submit(self, replica: Replica, count: int = 1) -> list[str]:
        """Generations that Rivya works on and that were just submitted through us."""
        ids = await self.generate(count)
        await replica.ledger.record([submit(generation_id, at=self.clock.now()) for generation_id in ids])
        return ids

    @property
    def polls(self) -> list[float]:
        """When Rivya was polled, in seconds."""
        return [call.monotonic for call in self.sandbox.calls.of("generations.get")]

    @property
    def polled(self) -> list[str]:
        """What Rivya was asked about, in order."""
        return [call.path.rpartition("/")[2] for call in self.sandbox.calls.of("generations.get")]


@asynccontextmanager
async def open_polling(url: str) -> AsyncIterator[PollingHarness]:
    clock = PacedClock()
    sandbox = Sandbox(manual=True, clock=clock)
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serve_sandbox(sandbox))
        yield PollingHarness(url, sandbox, clock, base_url=served.base_url, stack=stack)


def most_in_any_second(times: list[float]) -> int:
    """The largest number of moments that any one-second window holds."""
    return max((sum(start <= time < start + 1 for time in times) for start in times), default=0)
