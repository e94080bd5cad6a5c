"""Wakes those who wait for a submission that somebody else is sending, as soon as its outcome is written down."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

Pause = Callable[[asyncio.Event, float], Awaitable[None]]
"""Waits for an event, but no longer than so many seconds."""


async def until_set(event: asyncio.Event, seconds: float) -> None:
    """Wait for `event`, but no longer than so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class Wakeups:
    """Within this process; what other replicas resolve is found by looking."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def wake(self, submission_id: str) -> None:
        """Wake everybody who waits for this submission."""
        for event in self._waiting.get(submission_id, ()):
            event.set()

    def wake_all(self) -> None:
        """Wake everybody."""
        for submission_id in self._waiting:
            self.wake(submission_id)

    @contextmanager
    def wait_for(self, submission_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when the submission's outcome is written down; clear it, look, then wait."""
        event = asyncio.Event()
        self._waiting[submission_id].add(event)
        try:
            yield event
        finally:
            self._waiting[submission_id].discard(event)
            if not self._waiting[submission_id]:
                del self._waiting[submission_id]
