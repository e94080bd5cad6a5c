"""The sandbox's time, ids and secrets, and a dict that drops its oldest entries."""

import asyncio
import base64
import heapq
import itertools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

K = TypeVar("K")
V = TypeVar("V")
Job = Callable[[], Awaitable[None]]
_log = logging.getLogger(__name__)


class Clock(Protocol):
    """The time; tests pass a clock that they move."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some fixed time; they never go back."""
        return time.monotonic()


class SystemClock(Clock):
    """The clock of this machine."""


def stamp(at: datetime) -> str:
    """A time as Rivya writes it: `2026-05-10T00:00:00.000Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_id(prefix: str) -> str:
    """A random id such as `task_…`, `evt_…` or `whend_…`."""
    return f"{prefix}_{secrets.token_hex(12)}"


def new_secret(key_form: str) -> str:
    """A signing secret `whsec_…`; its suffix is 64 hex digits (also valid base64), or base64 of 32 bytes."""
    if key_form == "base64":
        return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    return "whsec_" + secrets.token_hex(32)


class Scheduler:
    """Runs jobs later: in real time, or in manual mode when `advance` reaches their time."""

    def __init__(self, *, manual: bool) -> None:
        self.manual = manual
        self._time = 0.0
        self._order = itertools.count()
        self._due: list[tuple[float, int, Job]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._sleepers: set[asyncio.Event] = set()

    def time(self) -> float:
        """Seconds since some fixed time; in manual mode only `advance` moves it."""
        return self._time if self.manual else time.monotonic()

    def call_later(self, seconds: float, job: Job) -> None:
        """Run the job once, after so many seconds."""
        if self.manual:
            heapq.heappush(self._due, (self._time + seconds, next(self._order), job))
            return
        task = asyncio.create_task(_run_after(seconds, job))
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    async def advance(self, seconds: float) -> None:
        """Manual mode: move time on; returns when every job that is due by then has been run, in order."""
        if not self.manual:
            raise RuntimeError("Only a manual sandbox can be advanced; here time passes by itself.")
        until = self._time + seconds
        while self._due and self._due[0][0] <= until:
            self._time, _, job = heapq.heappop(self._due)
            await job()
        self._time = max(self._time, until)

    async def sleep(self, seconds: float) -> None:
        """Wait so long, or until the sandbox closes."""
        woken = asyncio.Event()

        async def wake() -> None:
            woken.set()

        self._sleepers.add(woken)
        self.call_later(seconds, wake)
        await woken.wait()
        self._sleepers.discard(woken)

    async def drain(self) -> None:
        """Real time: wait until no job is running or planned."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self) -> None:
        """Cancel the jobs in real time and wake all sleepers; the jobs of manual mode stay planned."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sleeper in set(self._sleepers):
            sleeper.set()

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("sandbox.job_failed", exc_info=task.exception())


async def _run_after(seconds: float, job: Job) -> None:
    await asyncio.sleep(seconds)
    await job()


class BoundedDict(dict[K, V], Generic[K, V]):
    """A dict that keeps the newest `keep` entries by order of insertion."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self._keep = keep

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        if len(self) > self._keep:
            del self[next(iter(self))]
