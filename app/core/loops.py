"""Loops that run beside the requests: each turn guarded, each loop restarted, all stopped within their grace."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from app.core.errors import DatabaseUnavailable

log = structlog.stdlib.get_logger(__name__)

Turn = Callable[[], Awaitable[float]]
"""One turn of a loop: does what is due and returns the seconds until the next turn."""


async def until_available(action: Callable[[], Awaitable[None]]) -> None:
    """Do `action` again and again until the database is there for it."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return await action()
        except DatabaseUnavailable as error:
            log.warning("start.database_unavailable", attempt=attempt, reason=error.reason)
        await asyncio.sleep(min(attempt, 5))


class Loops:
    """The process's loops, started and stopped together."""

    def __init__(self, *, grace: float = 10.0) -> None:
        self._grace = grace
        """Seconds that a turn may still take once asked to stop."""
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, turn: Turn, *, pause_after_error: float = 1.0) -> None:
        """Run `turn` again and again; after an error, wait `pause_after_error` seconds, doubling up to 30."""
        self._tasks.append(asyncio.create_task(self._run(name, turn, pause_after_error), name=name))

    async def stop(self) -> None:
        """Let every loop finish its turn; cancel what is still running after the grace."""
        self._stop.set()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=self._grace)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        self._tasks = []

    async def _run(self, name: str, turn: Turn, pause_after_error: float) -> None:
        errors = 0
        while not self._stop.is_set():
            try:
                pause = await turn()
                errors = 0
            except DatabaseUnavailable as error:
                errors += 1
                pause = min(pause_after_error * 2 ** (errors - 1), 5.0)
                log.warning("loop.database_unavailable", loop=name, errors=errors, reason=error.reason)
            except Exception:
                errors += 1
                pause = min(pause_after_error * 2 ** (errors - 1), 30.0)
                log.exception("loop.failed", loop=name, errors=errors)
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0)):
                await self._stop.wait()
