"""The sandbox's own time: moments for what it writes down, seconds for what it measures."""

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


class Clock(Protocol):
    """Tells the time; tests pass one that they move by hand."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds that only ever grow, from an arbitrary start."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that only ever grow, from an arbitrary start."""
        return time.monotonic()


def stamp(at: datetime) -> str:
    """A moment as Rivya writes it: `2026-05-10T00:00:00.000Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# Public ids and secrets in Rivya's look: a prefix that names the kind, then random characters.


def new_id(prefix: str) -> str:
    """`task_…`, `evt_…`, `whend_…`, `whdel_…`, `file_…`, `chatcmpl_…` or `req_…`."""
    return f"{prefix}_{secrets.token_hex(12)}"


def new_secret(key_form: str) -> str:
    """A signing secret `whsec_…`; its suffix is 64 hex digits (base64 as well), unless the form asks for base64."""
    if key_form == "base64":
        return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    return "whsec_" + secrets.token_hex(32)


# What happens later: by itself after some seconds, or in manual mode only when a test moves time on.


Job = Callable[[], Awaitable[None]]

_log = logging.getLogger(__name__)


class Scheduler:
    """Jobs with a due time; in manual mode they wait in a heap until `advance` reaches them."""

    def __init__(self, *, manual: bool) -> None:
        self.manual = manual
        self._time = 0.0
        self._order = itertools.count()
        self._due: list[tuple[float, int, Job]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._sleepers: set[asyncio.Event] = set()

    def time(self) -> float:
        """Seconds on the scale that due times are measured on; in manual mode only `advance` moves it."""
        return self._time if self.manual else time.monotonic()

    def call_later(self, seconds: float, job: Job) -> None:
        """Do the job once, so many seconds from now."""
        if self.manual:
            heapq.heappush(self._due, (self._time + seconds, next(self._order), job))
            return
        task = asyncio.create_task(_after(seconds, job))
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def advance(self, seconds: float) -> None:
        """Manual mode: move time on and do everything that falls due, in order; returns when it is done."""
        if not self.manual:
            raise RuntimeError("Time moves by itself here; only a manual sandbox can be advanced.")
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
        """Real time: wait until nothing is under way and nothing is planned."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self) -> None:
        """Drop what runs by itself and wake all sleepers; what waits in the manual heap stays there."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sleeper in set(self._sleepers):
            sleeper.set()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("sandbox.job_failed", exc_info=task.exception())


async def _after(seconds: float, job: Job) -> None:
    await asyncio.sleep(seconds)
    await job()


# A mapping that forgets its oldest entries, so that a long run stays small.


K = TypeVar("K")
V = TypeVar("V")


class Bounded(dict[K, V], Generic[K, V]):
    """Keeps the newest `keep` entries by order of insertion."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self._keep = keep

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        if len(self) > self._keep:
            del self[next(iter(self))]
