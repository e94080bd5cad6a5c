"""Wakes, within this process, those who wait for something with a given id; and ends a wait early."""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")


class Waiter(Protocol):
    """Is woken by `Waiters`: an `asyncio.Event`, or an object that needs no task to wait."""

    def set(self) -> None:
        """Something has changed. Must not raise: the other waiters are woken by the same loop."""


class Waiters:
    """Waiters by the id they wait for. Changes made by other replicas are not noticed here: waiters must also poll."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[Waiter]] = defaultdict(set)

    def wake(self, waited_id: str) -> None:
        """Wake everybody who waits for this id."""
        for waiter in tuple(self._waiting.get(waited_id, ())):  # a copy: a waiter that is woken may end its wait
            waiter.set()

    def wake_all(self) -> None:
        """Wake everybody."""
        for waited_id in self.waited_for:
            self.wake(waited_id)

    @property
    def waited_for(self) -> list[str]:
        """The ids that somebody waits for."""
        return list(self._waiting)

    @property
    def count(self) -> int:
        """The number of waiters."""
        return sum(map(len, self._waiting.values()))

    def is_waited_for(self, waited_id: str) -> bool:
        """Whether somebody waits for this id."""
        return waited_id in self._waiting

    @contextmanager
    def wait(self, waited_id: str) -> Iterator[asyncio.Event]:
        """An event that is set each time the id is woken; clear it, read the state, then wait."""
        event = asyncio.Event()
        self.add(waited_id, event)
        try:
            yield event
        finally:
            self.remove(waited_id, event)

    def add(self, waited_id: str, waiter: Waiter) -> None:
        """Wake this waiter each time the id is woken, until `remove`."""
        self._waiting[waited_id].add(waiter)

    def remove(self, waited_id: str, waiter: Waiter) -> None:
        """Stop waking this waiter."""
        self._waiting[waited_id].discard(waiter)
        if not self._waiting[waited_id]:
            del self._waiting[waited_id]


async def until_set(event: asyncio.Event, seconds: float) -> None:
    """Wait for `event`, but no longer than so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def run_unless(
    interruption: Coroutine[Any, Any, object], work: Coroutine[Any, Any, Result], *, error: Exception
) -> Result:
    """The result of `work`. If `interruption` ends first, `work` is cancelled and `error` is raised."""
    working, interrupting = asyncio.create_task(work), asyncio.create_task(interruption)
    try:
        await asyncio.wait({working, interrupting}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise error
        return working.result()
    finally:
        working.cancel()
        interrupting.cancel()
        await asyncio.gather(working, interrupting, return_exceptions=True)
