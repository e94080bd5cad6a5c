"""Waits until a generation is settled: woken by this process's commits, and by a look for those of other replicas."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.types import Receive

from app.api.caller_waiting import CallerWaiting, Tell
from app.api.shared_reads import SharedReads
from app.ledger.changes import Changes
from app.ledger.models import Generation
from app.ledger.queries import Queries

_SECONDS_BETWEEN_LOOKS = 0.5


class CallerGone(Exception):
    """The connection was lost during the wait: there is nobody to answer."""


class Waiting:
    """Holds no connection while it waits; `turn` is a loop, and without it only this process's commits wake."""

    def __init__(self, queries: Queries, changes: Changes) -> None:
        self._queries = queries
        self._changes = changes
        self.reads = SharedReads(queries.generations_by_id)
        """Every read by id, waiting or not."""
        self._stopping = asyncio.Event()

    async def generation(self, generation_id: str, receive: Receive, *, seconds: float = 0) -> Generation | None:
        """The generation once it is settled, or as it is after `seconds`; None at once if it isn't known.

        `receive` is the request's. Raises `DatabaseUnavailable`, and `CallerGone` as soon as a wait has no use.
        """
        if seconds <= 0:
            return await self.reads.generation(generation_id)
        deadline = asyncio.get_running_loop().time() + seconds
        with self._changes.wait_for(generation_id) as changed:
            leaving = asyncio.create_task(_disconnected(receive, changed))
            try:
                return await self._settled(generation_id, changed, deadline, leaving)
            finally:
                leaving.cancel()

    def tell(self, generation_id: str, seconds: float, tell: Tell) -> Callable[[], None] | None:
        """Have `tell` called with the read that `generation` would return or raise from.

        What is returned is to be called when the caller leaves; None where there is so little to wait for that it may.
        """
        if seconds <= 0:
            self.reads.ask(generation_id).add_done_callback(tell)
            return None
        waiter = CallerWaiting(
            generation_id, seconds, tell, reads=self.reads, changes=self._changes, stopping=self._stopping
        )
        return waiter.leave

    async def turn(self) -> float:
        """Wake those whose generations another replica has settled: one statement, none while nobody waits."""
        ids = self._changes.waited_for
        if ids:
            for generation_id in await self._queries.settled_among(ids):
                self._changes.wake(generation_id)
        return _SECONDS_BETWEEN_LOOKS

    def stop(self) -> None:
        """Answer everybody at once with what is known, and let nobody wait any more."""
        self._stopping.set()
        for generation_id in self._changes.waited_for:
            self._changes.wake(generation_id)

    async def _settled(
        self, generation_id: str, changed: asyncio.Event, deadline: float, leaving: "asyncio.Task[None]"
    ) -> Generation | None:
        found = await self.reads.generation(generation_id)
        while found is not None and not found.status.is_terminal and not self._stopping.is_set():
            is_over = not await self._wait(changed, deadline)
            if leaving.done():
                raise CallerGone
            if self._stopping.is_set():  # the database may be gone already
                return found
            found = await self.reads.generation(generation_id)
            if is_over:
                return found
        return found

    async def _wait(self, changed: asyncio.Event, deadline: float) -> bool:
        """True when something changed, False when the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await changed.wait()
        was_woken = changed.is_set()
        changed.clear()
        return was_woken


async def _disconnected(receive: Receive, changed: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    changed.set()
