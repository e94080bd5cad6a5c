"""Waits until a generation is settled: woken by this process's commits, and by a look for those of other replicas."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import structlog
from starlette.types import Receive

from app.core.errors import DatabaseUnavailable
from app.core.waiters import Waiters
from app.ledger.models import Generation
from app.ledger.queries import Queries

log = structlog.stdlib.get_logger(__name__)

READ, DEADLINE = "generation_read", "generation_wait_until"
"""In the scope's `state`, for the documented route: the read that is over, else until when to wait, by the loop."""


# Reads by id, grouped: what is asked for during one query goes into the next, and the same generation is one row.


GenerationsById = Mapping[str, Generation]
ReadByIds = Callable[[Sequence[str]], Awaitable[GenerationsById]]

_MOST_AT_ONCE = 2


class ReadCoalescer:
    """Only a read that has not begun is joined: what it finds is never older than the question."""

    def __init__(self, read: ReadByIds, *, most_at_once: int = _MOST_AT_ONCE) -> None:
        self._read = read
        self._most_at_once = most_at_once
        """Queries under way: one of them returns while the other is being planned and read."""
        self._ids: set[str] = set()
        self._answer: asyncio.Future[GenerationsById] | None = None
        """Of the group that is forming."""
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def generation(self, generation_id: str) -> Generation | None:
        """The generation as it is now; None if it isn't known. Raises what the read raises."""
        # Shielded: one caller that gives up must not take the others' answer away.
        return (await asyncio.shield(self.request(generation_id))).get(generation_id)

    def request(self, generation_id: str) -> "asyncio.Future[GenerationsById]":
        """What the group finds that this generation is read with; shared, and not to be cancelled."""
        self._ids.add(generation_id)
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            self._answer.add_done_callback(_mark_retrieved)
            if self._under_way < self._most_at_once:
                self._under_way += 1
                task = asyncio.create_task(self._run(), name="shared-read")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return self._answer

    async def _run(self) -> None:
        """Read one group after another, as long as there are any."""
        while self._answer is not None:
            ids, answer, self._ids, self._answer = sorted(self._ids), self._answer, set(), None
            try:
                generations = await self._read(ids)
            except Exception as error:  # noqa: BLE001 - it is theirs who asked
                answer.set_exception(error)
            except asyncio.CancelledError:  # of the query, or of us at the very end: nobody is to wait for ever
                answer.set_exception(DatabaseUnavailable())
            else:
                answer.set_result(generations)
            del answer  # else it would hold itself, by the traceback of the error that it holds
        self._under_way -= 1  # in the same step as the last look: who asks from now on begins anew


def _mark_retrieved(answer: "asyncio.Future[GenerationsById]") -> None:
    if not answer.cancelled():
        answer.exception()  # seen: should everybody have given up, nobody else will fetch it


# A caller who waits for an outcome without a task: a thousand of them are woken in the time that a few tasks take.


OnRead = Callable[["asyncio.Future[GenerationsById] | None"], None]
"""Answers the caller with what a read found, or failed with; None where there was none: he left, or we failed."""


class LongPollWaiter:
    """Looks, sleeps until woken, looks again, and tells once: an outcome, or whatever is known when the time is over.

    A look that has begun may be older than what woke us, so another one follows it.
    """

    __slots__ = (
        "_callback", "_changes", "_generation_id", "_is_last", "_is_reading", "_is_woken", "_known", "_reads",
        "_stopping", "_timer",
    )  # fmt: skip

    def __init__(
        self,
        generation_id: str,
        seconds: float,
        callback: OnRead,
        *,
        reads: ReadCoalescer,
        changes: Waiters,
        stopping: asyncio.Event,
    ) -> None:
        self._generation_id = generation_id
        self._callback: OnRead | None = callback
        """None: it has been told."""
        self._reads = reads
        self._changes = changes
        self._stopping = stopping
        self._known: asyncio.Future[GenerationsById] | None = None
        self._is_reading = self._is_woken = self._is_last = False
        self._start_read()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)
        changes.begin(generation_id, self)

    def set(self) -> None:
        """Something has changed, or we stop; then what is known is told, since the database may be gone already."""
        if self._stopping.is_set() and self._known is not None:
            self._finish(self._known)
        elif self._is_reading:
            self._is_woken = True
        elif self._callback is not None:
            try:
                self._start_read()
            except Exception:
                log.exception("waiting.failed")
                self._finish(None)

    def leave(self) -> None:
        """Nobody waits any more."""
        self._finish(None)

    def _expire(self) -> None:
        self._is_last = True
        self.set()

    def _start_read(self) -> None:
        self._is_reading, self._is_woken = True, False
        self._reads.request(self._generation_id).add_done_callback(self._on_read)

    def _on_read(self, answer: "asyncio.Future[GenerationsById]") -> None:
        self._is_reading = False
        if self._callback is None:
            return
        try:
            generation = generation_in(answer, self._generation_id)
            if generation is None or generation.status.is_terminal or self._stopping.is_set():
                self._finish(answer)
                return
            self._known = answer
            if self._is_woken:
                self._start_read()
            elif self._is_last:
                self._finish(answer)
        except Exception:
            log.exception("waiting.failed")
            self._finish(None)

    def _finish(self, answer: "asyncio.Future[GenerationsById] | None") -> None:
        callback, self._callback, self._known = self._callback, None, None
        if callback is not None:
            self._timer.cancel()
            self._changes.end(self._generation_id, self)
            callback(answer)


def generation_in(answer: "asyncio.Future[GenerationsById]", generation_id: str) -> Generation | None:
    """What a read that is over tells of a generation; None where it failed."""
    is_sent_back = not answer.cancelled() and answer.exception() is None
    return answer.result().get(generation_id) if is_sent_back else None


_SECONDS_BETWEEN_LOOKS = 0.5


class CallerGone(Exception):
    """The connection was lost during the wait: there is nobody to answer."""


class Waiting:
    """Holds no connection while it waits; `run_once` is a loop, and without it only this process's commits wake."""

    def __init__(self, queries: Queries, changes: Waiters) -> None:
        self._queries = queries
        self._changes = changes
        self.reads = ReadCoalescer(queries.generations_by_id)
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

    def add_callback(self, generation_id: str, seconds: float, callback: OnRead) -> Callable[[], None] | None:
        """Have `tell` called with the read that `generation` would return or raise from.

        What is returned is to be called when the caller leaves; None where there is so little to wait for that it may.
        """
        if seconds <= 0:
            self.reads.request(generation_id).add_done_callback(callback)
            return None
        waiter = LongPollWaiter(
            generation_id, seconds, callback, reads=self.reads, changes=self._changes, stopping=self._stopping
        )
        return waiter.leave

    async def run_once(self) -> float:
        """Wake those whose generations another replica has settled: one statement, none while nobody waits."""
        ids = self._changes.waited_for
        if ids:
            for generation_id in await self._queries.settled_among(ids):
                self._changes.wake(generation_id)
        return _SECONDS_BETWEEN_LOOKS

    def stop(self) -> None:
        """Answer everybody at once with what is known, and let nobody wait any more."""
        self._stopping.set()
        self._changes.wake_all()

    async def _settled(
        self, generation_id: str, changed: asyncio.Event, deadline: float, leaving: "asyncio.Task[None]"
    ) -> Generation | None:
        generation = await self.reads.generation(generation_id)
        while generation is not None and not generation.status.is_terminal and not self._stopping.is_set():
            is_over = not await self._wait(changed, deadline)
            if leaving.done():
                raise CallerGone
            if self._stopping.is_set():  # the database may be gone already
                return generation
            generation = await self.reads.generation(generation_id)
            if is_over:
                return generation
        return generation

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
