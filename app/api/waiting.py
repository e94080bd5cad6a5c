"""Waits until a generation is settled: woken by this process's commits, and by a query for those of other replicas."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
from starlette.types import Receive

from app.core.bodies import ClientDisconnected, until_disconnected
from app.core.errors import DatabaseUnavailable
from app.core.waiters import Waiters
from app.ledger.models import Generation
from app.ledger.queries import Queries

log = structlog.stdlib.get_logger(__name__)

READ, DEADLINE = "generation_read", "generation_wait_until"
"""Keys of the scope's `state`, for the documented route: the finished read; the end of the wait in loop time."""

GenerationsById = Mapping[str, Generation]
ReadByIds = Callable[[Sequence[str]], Awaitable[GenerationsById]]

_MOST_AT_ONCE = 2


class ReadCoalescer:
    """Groups reads by id: requests that come during a query share the next, so no result is older than its request."""

    def __init__(self, read: ReadByIds, *, most_at_once: int = _MOST_AT_ONCE) -> None:
        self._read = read
        self._most_at_once = most_at_once
        """Queries at the same time: one returns rows while the database works on the other."""
        self._ids: set[str] = set()
        self._answer: asyncio.Future[GenerationsById] | None = None
        """The result of the group that is forming."""
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def generation(self, generation_id: str) -> Generation | None:
        """The current generation; None if it isn't known. Raises what the read raises."""
        # Shielded: a caller that is cancelled must not cancel the result of the others.
        return (await asyncio.shield(self.request(generation_id))).get(generation_id)

    def request(self, generation_id: str) -> "asyncio.Future[GenerationsById]":
        """The result of the next group, which includes this generation; shared, so do not cancel it."""
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
        """Read one group after another until none is left."""
        while self._answer is not None:
            ids, answer, self._ids, self._answer = sorted(self._ids), self._answer, set(), None
            try:
                generations = await self._read(ids)
            except Exception as error:  # noqa: BLE001 - the callers handle it
                answer.set_exception(error)
            except asyncio.CancelledError:  # of the query, or at shutdown: no caller may wait forever
                answer.set_exception(DatabaseUnavailable())
            else:
                answer.set_result(generations)
            del answer  # else the error's traceback and the future would refer to each other
        self._under_way -= 1  # no await since the loop's last check, so the next request starts a new task


def _mark_retrieved(answer: "asyncio.Future[GenerationsById]") -> None:
    if not answer.cancelled():
        answer.exception()  # else asyncio logs it as never retrieved if all callers have left


OnRead = Callable[["asyncio.Future[GenerationsById] | None"], None]
"""Gets the finished read, or None if there is none: the caller left, or the wait failed."""


class LongPollWaiter:
    """Reads until the generation is settled or the time is over, then calls `callback` once; uses no task.

    A read that began before a change may not include it, so another read follows.
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
        """None once it was called."""
        self._reads = reads
        self._changes = changes
        self._stopping = stopping
        self._known: asyncio.Future[GenerationsById] | None = None
        self._is_reading = self._is_woken = self._is_last = False
        self._start_read()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)
        changes.add(generation_id, self)

    def set(self) -> None:
        """Read again after a change. At shutdown finish with the last read: the database may be closed."""
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
        """End the wait: the caller has left."""
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
            self._changes.remove(self._generation_id, self)
            callback(answer)


def generation_in(answer: "asyncio.Future[GenerationsById]", generation_id: str) -> Generation | None:
    """The generation in a finished read; None if it is unknown or the read failed."""
    is_sent_back = not answer.cancelled() and answer.exception() is None
    return answer.result().get(generation_id) if is_sent_back else None


_SECONDS_BETWEEN_READS = 0.5
MAX_SECONDS = 55.0
"""Less than the 60 s after which most proxies answer 504."""


class Waiting:
    """Waits without holding a database connection. `run_once` wakes for commits of other replicas."""

    def __init__(self, queries: Queries, changes: Waiters, *, max_seconds: float = MAX_SECONDS) -> None:
        self._queries = queries
        self._changes = changes
        self.reads = ReadCoalescer(queries.generations_by_id)
        """For every read by id, with a wait or without."""
        self.max_seconds = max_seconds
        """The longest wait; a longer one is answered then."""
        self._stopping = asyncio.Event()

    async def generation(self, generation_id: str, receive: Receive, *, seconds: float = 0) -> Generation | None:
        """The generation once it is settled, or its state after `seconds`; None at once if it isn't known.

        `receive` is the request's. Raises `DatabaseUnavailable`, and `ClientDisconnected` if the connection is lost.
        """
        if seconds <= 0:
            return await self.reads.generation(generation_id)
        finished: asyncio.Future[asyncio.Future[GenerationsById] | None] = asyncio.get_running_loop().create_future()
        leave = self.add_callback(generation_id, seconds, finished.set_result)
        leaving = asyncio.create_task(until_disconnected(receive))
        leaving.add_done_callback(lambda _: leave() if leave is not None else None)
        try:
            await asyncio.wait([finished])
            if leaving.done():
                raise ClientDisconnected
        finally:
            leaving.cancel()
        read = finished.result()
        return await self.reads.generation(generation_id) if read is None else read.result().get(generation_id)

    def add_callback(self, generation_id: str, seconds: float, callback: OnRead) -> Callable[[], None] | None:
        """Call `callback` with the read that `generation` would return from, and without a task.

        Returns a function that ends the wait when the caller leaves; None if nothing is to be waited for but one read.
        """
        if seconds <= 0:
            self.reads.request(generation_id).add_done_callback(callback)
            return None
        waiter = LongPollWaiter(
            generation_id, seconds, callback, reads=self.reads, changes=self._changes, stopping=self._stopping
        )
        return waiter.leave

    async def run_once(self) -> float:
        """Wake the waits whose generations are settled; returns the seconds until the next run.

        One statement, or none if no caller waits. Raises `DatabaseUnavailable`."""
        ids = self._changes.waited_for
        if ids:
            for generation_id in await self._queries.settled_among(ids):
                self._changes.wake(generation_id)
        return _SECONDS_BETWEEN_READS

    def stop(self) -> None:
        """End all waits with the last known state, and let new calls return without waiting."""
        self._stopping.set()
        self._changes.wake_all()
