"""Background tasks, supervised: every run guarded, run again after any error, and all stopped within their grace."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import Counter

from app.core.clock import Clock
from app.core.errors import DatabaseUnavailable, HealthCheck

FAILURES = Counter(
    "receiver_background_failures", "Runs of a background task that failed, an absent database included.", ["task"]
)

FAILURES_UNTIL_DOWN: Final = 3
SECONDS_DOWN: Final = 90.0
"""Longer than the longest pause and a run that ends in a time-out of the database."""

_MOST_DOUBLINGS: Final = 10
_LONGEST_PAUSE_WITHOUT_DATABASE: Final = 5.0

log = structlog.stdlib.get_logger(__name__)

RunOnce = Callable[[], Awaitable[float | None]]
"""One run of a task: does what is due and returns the seconds until the next run, None if there is to be none.

After 0 the next run begins at once, without a turn of the event loop.
"""


@dataclass(slots=True)
class _Supervised:
    name: str
    run_once: RunOnce
    pause_after_error: float
    longest_pause: float
    failures: int = 0
    """In a row, for whatever reason."""
    errors: int = 0
    """Since the last run that succeeded, those for another reason than an absent database."""
    failed_at: float = 0.0
    """When the newest of `errors` happened."""
    reason: str = ""


class BackgroundLoops:
    """Background tasks that are started and stopped together, and one check of them for /readyz, called `name`."""

    def __init__(self, clock: Clock, *, name: str = "background_tasks", grace: float = 10.0) -> None:
        self._clock = clock
        self._name = name
        self._grace = grace
        """Seconds that a run may still take once asked to stop."""
        self._stop = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], _Supervised] = {}

    def start(
        self, name: str, run_once: RunOnce, *, pause_after_error: float = 1.0, longest_pause: float = 30.0
    ) -> asyncio.Task[None]:
        """Run `run_once` again and again. After an error pause `pause_after_error` seconds, doubling to the longest."""
        supervised = _Supervised(name, run_once, pause_after_error, longest_pause)
        task = asyncio.create_task(self._run(supervised), name=name)
        self._tasks[task] = supervised
        return task

    async def stop(self) -> None:
        """Let every task finish its run; cancel what is still running after the grace."""
        self._stop.set()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=self._grace)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        self._tasks = {}

    async def health_checks(self) -> list[HealthCheck]:
        """Which tasks are down, for /readyz.

        A task is down, and the process not ready, when it has ended by accident, or has failed three times without a
        success between: one failure that the next run mends takes no replica out of rotation. 90 s after its newest
        failure a task counts as well again, since one that waits for requests gets none while the process is not ready.
        Without a database every task fails. That is the database check's to judge; it is named here, with the reason,
        and does not make the process not ready.
        """
        down, waiting, running = [], [], 0
        for task, it in self._tasks.items():
            is_recent = self._clock.monotonic() - it.failed_at < SECONDS_DOWN
            running += not task.done()
            if task.done() and (task.cancelled() or task.exception() is not None):
                down.append(f"{it.name} has ended: restart this process")
            elif it.errors >= FAILURES_UNTIL_DOWN and is_recent:
                down.append(f"{it.name} fails again and again ({it.reason}): see `loop.failed` in the log")
            elif it.failures >= FAILURES_UNTIL_DOWN and not it.errors:
                waiting.append(f"{it.name} waits for the database ({it.reason})")
        detail = "; ".join(down + waiting) or f"{running} running"
        return [HealthCheck(self._name, ok=not (down or waiting), detail=detail, is_required=bool(down) or not waiting)]

    async def _run(self, supervised: _Supervised) -> None:
        while not self._stop.is_set():
            try:
                pause = await supervised.run_once()
                supervised.failures = supervised.errors = 0
            except (Exception, asyncio.CancelledError) as error:
                if _is_being_cancelled():
                    raise
                pause = self._failed(supervised, error)
            if pause is None:
                return
            if pause or supervised.failures:
                await self._pause(pause)

    def _failed(self, it: _Supervised, error: BaseException) -> float:
        """Count and log it; the seconds until the next run."""
        FAILURES.labels(it.name).inc()
        it.failures += 1
        pause = pause_after(it.failures, first=it.pause_after_error, longest=it.longest_pause)
        if isinstance(error, DatabaseUnavailable):
            it.reason = error.reason or type(error).__name__
            log.warning("loop.database_unavailable", loop=it.name, errors=it.failures, reason=error.reason)
            return min(pause, _LONGEST_PAUSE_WITHOUT_DATABASE)
        it.reason = type(error).__name__
        it.errors += 1
        it.failed_at = self._clock.monotonic()
        log.error("loop.failed", loop=it.name, errors=it.failures, exc_info=error)
        return pause

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0)):
                await self._stop.wait()


def pause_after(failures: int, *, first: float, longest: float) -> float:
    """Seconds to wait after so many failures in a row, from 1: `first`, doubling to `longest`."""
    return min(first * (1 << min(failures - 1, _MOST_DOUBLINGS)), longest)


def _is_being_cancelled() -> bool:
    """Whether somebody cancels this task; a run can also meet the cancellation of something it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
