"""Wakes those who wait for a generation, as soon as the commit that settles it is done."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from app.ledger.decide import Recorded
from app.ledger.models import Transition


class Waiter(Protocol):
    """Waits for a generation: an `asyncio.Event`, or what does without a task."""

    def set(self) -> None:
        """The generation has changed. Must not raise."""


class Waiters:
    """Within this process; what other replicas commit is found by `app.api.waiting`."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[Waiter]] = defaultdict(set)
        self._listeners: set[asyncio.Queue[Transition]] = set()

    def publish(self, recorded: Iterable[Recorded]) -> None:
        """Tell of what was committed."""
        if not self._waiting and not self._listeners:
            return
        for item in recorded:
            if item.transition is None:
                continue
            self.wake(item.transition.generation_id)
            for queue in self._listeners:
                queue.put_nowait(item.transition)

    def wake(self, generation_id: str) -> None:
        """Wake everybody who waits for this generation."""
        for sleeper in tuple(self._waiting.get(generation_id, ())):
            sleeper.set()

    @property
    def waited_for(self) -> list[str]:
        """The generations that somebody waits for."""
        return list(self._waiting)

    @contextmanager
    def wait_for(self, generation_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at each change of the generation; clear it, look, then wait."""
        event = asyncio.Event()
        self.begin(generation_id, event)
        try:
            yield event
        finally:
            self.end(generation_id, event)

    def begin(self, generation_id: str, sleeper: Waiter) -> None:
        """Wake the sleeper at each change of the generation from now on."""
        self._waiting[generation_id].add(sleeper)

    def end(self, generation_id: str, sleeper: Waiter) -> None:
        """No longer."""
        self._waiting[generation_id].discard(sleeper)
        if not self._waiting[generation_id]:
            del self._waiting[generation_id]

    @contextmanager
    def listen(self) -> Iterator[asyncio.Queue[Transition]]:
        """Every transition that this process commits, in order."""
        queue: asyncio.Queue[Transition] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)
