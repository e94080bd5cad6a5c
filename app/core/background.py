"""Supervised background tasks: each runs again after any error, and all stop within a grace period."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import Counter

from app.core.clock import Clock
from app.core.errors import DatabaseUnavailable, HealthCheck
from app.core.waiters import until_set

FAILURES = Counter(
    "receiver_background_failures", "Runs of a background task that failed, an absent database included.", ["task"]
)

FAILURES_UNTIL_DOWN: Final = 3
_REMEDY: Final = "see `loop.failed` in the log; restart this process if a background task has ended"
SECONDS_DOWN: Final = 90.0
"""Longer than the longest pause plus a run that ends in a database time-out."""

_MOST_DOUBLINGS: Final = 10
_LONGEST_PAUSE_WITHOUT_DATABASE: Final = 5.0

log = structlog.stdlib.get_logger(__name__)

RunOnce = Callable[[], Awaitable[float | None]]
"""One run of a task: does what is due, returns the seconds until the next run, or None to end the task.

After 0 the next run begins at once and does not yield to the event loop.
"""


@dataclass(slots=True)
class _Supervised:
    name: str
    run_once: RunOnce
    pause_after_error: float
    longest_pause: float
    failures: int = 0
    """Failed runs in a row, for any reason."""
    errors: int = 0
    """Failed runs since the last success, without those where the database was unavailable."""
    failed_at: float = 0.0
    """Time of the newest of `errors`, on the monotonic clock."""
    reason: str = ""


class BackgroundLoops:
    """Background tasks that start and stop together, and one health check named `name` for /readyz."""

    def __init__(self, clock: Clock, *, name: str = "background_tasks", grace: float = 10.0) -> None:
        self._clock = clock
        self._name = name
        self._grace = grace
        """Seconds that a run may still take after `stop` was called."""
        self._stop = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], _Supervised] = {}

    def start(
        self, name: str, run_once: RunOnce, *, pause_after_error: float = 1.0, longest_pause: float = 30.0
    ) -> asyncio.Task[None]:
        """Run `run_once` in a loop. After an error pause `pause_after_error` seconds, doubled up to `longest_pause`."""
        supervised = _Supervised(name, run_once, pause_after_error, longest_pause)
        task = asyncio.create_task(self._run(supervised), name=name)
        self._tasks[task] = supervised
        return task

    async def stop(self) -> None:
        """Let every task finish its run; cancel what is still running after the grace. Tasks can be started again."""
        if not self._tasks:
            return
        self._stop.set()
        _, running = await asyncio.wait(self._tasks, timeout=self._grace)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._tasks = {}
        self._stop.clear()

    async def health_checks(self) -> list[HealthCheck]:
        """One check for /readyz that names the tasks that are down.

        A task is down, and the process not ready, when it ended unexpectedly, or failed three times without a success
        between: a single failure takes no replica out of rotation. 90 s after its newest failure a task counts as
        healthy again, because a task that waits for requests gets none while the process is not ready. Without a
        database every task fails. This is named here with the reason, but only the database check makes the process
        not ready then.
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
        ok, is_required = not (down or waiting), bool(down) or not waiting
        return [HealthCheck(self._name, ok=ok, detail=detail, is_required=is_required, remedy=_REMEDY)]

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
                await until_set(self._stop, max(pause, 0))

    def _failed(self, it: _Supervised, error: BaseException) -> float:
        """Count and log the failure; returns the seconds until the next run."""
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


def pause_after(failures: int, *, first: float, longest: float) -> float:
    """Seconds to wait after the given number of failures in a row (from 1): `first`, doubled up to `longest`."""
    return min(first * (1 << min(failures - 1, _MOST_DOUBLINGS)), longest)


def _is_being_cancelled() -> bool:
    """Whether this task itself is being cancelled, and not just something that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
