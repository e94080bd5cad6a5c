"""Group commit: reports that arrive while a batch is being recorded go into the next; no timer, no added latency."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Protocol

import structlog

from app.core.background import BackgroundLoops
from app.core.clock import Clock
from app.core.errors import DatabaseUnavailable, Overloaded, ServiceError
from app.ledger.decide import Recorded
from app.ledger.metrics import BATCH_SIZE, COMMIT_SECONDS
from app.ledger.models import Report
from app.ledger.recorder import BatchRecorder, RecordFailed

log = structlog.stdlib.get_logger(__name__)


class Completion(Protocol):
    """Receives the result of one report: a future, or an object that needs no further run of the event loop."""

    def done(self) -> bool:
        """True if it has its result, or nobody waits for it any more."""

    def set_result(self, recorded: Recorded, /) -> None:
        """Receive the result of the committed report."""

    def set_exception(self, error: ServiceError, /) -> None:
        """Receive the error: the report is not committed."""


@dataclass(slots=True, eq=False)
class PendingReport:
    """A report in the queue."""

    report: Report
    completion: Completion
    deadline: float
    """Time of the event loop's clock, in seconds."""

    @property
    def size(self) -> int:
        """Bytes of the delivery's body."""
        delivery = self.report.delivery
        return 0 if delivery is None else len(delivery.body)


def resolve(completion: Completion, result: Recorded | ServiceError) -> None:
    """Set the result of one report. An error of the receiver is only logged: the writer has to serve the others."""
    try:
        if isinstance(result, ServiceError):
            completion.set_exception(result)
        else:
            completion.set_result(result)
    except Exception as error:  # noqa: BLE001 - one recorded item
        log.warning("report.not_answered", error=type(error).__name__)


def reject(batch: Sequence[PendingReport], error: ServiceError) -> None:
    """Set `error` for every report of the batch that is still waited for."""
    for waiting in batch:
        if waiting.completion.done():
            continue
        resolve(waiting.completion, error)
        if isinstance(waiting.completion, asyncio.Future):
            waiting.completion.exception()  # marks it as retrieved: a sender that gave up never reads it


_LONGEST_PAUSE: Final = 1.0
"""Longest pause of a writer after errors, in seconds; reports wait for it, up to 10 seconds."""

WRITERS: Final = 2
"""For PostgreSQL: while it commits one batch, we answer and collect the other. SQLite has one writer."""

FEW_AFTER: Final = 0.05
"""Seconds after which few reports are a batch, too: what is being recorded may be held up, as by a lock."""

PATIENCE = 10.0
"""Seconds that a report may wait for its commit before its sender gets an error and has to repeat it."""

MAX_BYTES: Final = 64 * 1024 * 1024
"""Limit of the bodies in the queue and in the batches being recorded; a body on its own may be larger."""


class WriteQueue:
    """A bounded queue of reports, recorded by `writers` loops in batches of up to `most_at_once`."""

    def __init__(
        self,
        recorder: BatchRecorder,
        clock: Clock,
        *,
        writers: int = 1,
        most_waiting: int = 2000,
        most_bytes: int = MAX_BYTES,
        most_at_once: int = 200,
        few_after: float = FEW_AFTER,
        patience: float = PATIENCE,
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._writers = writers
        self._most_waiting = most_waiting
        self._most_bytes = most_bytes
        self._most_at_once = most_at_once
        self._few_after = few_after
        self._patience = patience
        self._queue: deque[PendingReport] = deque()
        self._being_recorded: list[list[PendingReport]] = []
        self._enough = 1
        """How many reports a batch begins with."""
        self._bytes = 0
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """Stored, because getting the running loop is a system call."""
        self._arrived = asyncio.Event()
        self._next_batch = asyncio.Lock()
        """Held by the writer that waits for the next batch."""
        self._loops = BackgroundLoops(clock, name="write_queue")
        self.health_checks = self._loops.health_checks
        """The writers that are down, for /readyz."""
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self) -> None:
        """Start the writers."""
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._tasks = [
            self._loops.start(f"batch-{n}", self._write, pause_after_error=0.1, longest_pause=_LONGEST_PAUSE)
            for n in range(self._writers)
        ]

    async def stop(self) -> None:
        """Record what is waiting, for `patience` seconds at most, then stop the writers and reject the rest."""
        self._stopping = True
        self._arrived.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._patience)
        await self._loops.stop()
        reject(list(self._queue), DatabaseUnavailable())
        self._queue.clear()
        self._bytes = 0
        await asyncio.sleep(0)  # the last commit is published in the next run of the event loop
        self._tasks = []

    async def record(self, report: Report) -> Recorded:
        """Wait until `report` is committed, and return its result.

        Raises `Overloaded` when the queue is full, `DatabaseUnavailable` when the database is away or too slow,
        `RecordFailed` when only this report can't be recorded.
        """
        answer: asyncio.Future[Recorded] = asyncio.get_running_loop().create_future()
        self.enqueue(report, answer)
        return await answer

    def enqueue(self, report: Report, completion: Completion) -> None:
        """Like `record`, but pass the result to `completion` instead of waiting. Raises `Overloaded`."""
        if self._stopping or len(self._queue) >= self._most_waiting:
            raise Overloaded
        loop = self._loop if self._loop is not None else asyncio.get_running_loop()
        waiting = PendingReport(report, completion, loop.time() + self._patience)
        if self._bytes and self._bytes + waiting.size > self._most_bytes:
            raise Overloaded
        self._bytes += waiting.size
        self._queue.append(waiting)
        if len(self._queue) >= self._enough or len(self._queue) == 1:
            self._arrived.set()
        if self._deadline_timer is None:
            self._deadline_timer = loop.call_at(waiting.deadline, self._expire_overdue)

    def _expire_overdue(self) -> None:
        """Reject reports whose deadline has passed. One timer for all: one for each would cost too much."""
        loop = asyncio.get_running_loop()
        now, self._deadline_timer = loop.time(), None
        waiting = [it for it in chain(*self._being_recorded, self._queue) if not it.completion.done()]
        reject([it for it in waiting if it.deadline <= now], DatabaseUnavailable())
        following = min((it.deadline for it in waiting if it.deadline > now), default=None)
        if following is not None:
            self._deadline_timer = loop.call_at(following, self._expire_overdue)

    async def _write(self) -> float | None:
        """Record the next batch. Return 0, the seconds until the next run; None when all is recorded and we stop."""
        async with self._next_batch:
            await self._wait_for_enough()
            if not self._queue:
                return None
            batch = self._take()
            self._being_recorded.append(batch)
            self._count_enough()
        try:
            error = await self._commit(batch)
            if isinstance(error, DatabaseUnavailable):
                log.warning("batch.not_recorded", size=len(batch), reason=error.reason)
                reject(batch, error)
            elif error is not None:
                await self._isolate(batch, error)
        except BaseException:
            reject(batch, DatabaseUnavailable())  # after any error, no sender may be left waiting
            raise
        finally:
            self._being_recorded.remove(batch)
            self._count_enough()
            self._arrived.set()
            self._bytes -= sum(waiting.size for waiting in batch)
        return 0.0

    async def _wait_for_enough(self) -> None:
        """Wait until as many reports wait as are being recorded, or until the first has waited for `few_after`.

        Both batches so become equally large. A second one of a few reports would cost nearly as much as a large one.
        """
        while len(self._queue) < self._enough and not self._stopping:
            self._arrived.clear()
            try:
                async with asyncio.timeout_at(self._few_due_at()):
                    await self._arrived.wait()
            except TimeoutError:
                return

    def _few_due_at(self) -> float | None:
        return self._queue[0].deadline - self._patience + self._few_after if self._queue else None

    def _count_enough(self) -> None:
        self._enough = max([1, *map(len, self._being_recorded)])

    def _take(self) -> list[PendingReport]:
        batch: list[PendingReport] = []
        while self._queue and len(batch) < self._most_at_once:
            waiting = self._queue.popleft()
            if waiting.completion.done():  # its sender got an error, and will repeat it
                self._bytes -= waiting.size
            else:
                batch.append(waiting)
        return batch

    async def _commit(self, batch: list[PendingReport]) -> Exception | None:
        """Record the batch and set the results; on an error, return it and set none."""
        started, reports = self._clock.monotonic(), [waiting.report for waiting in batch]
        try:
            recorded = await self._recorder.commit(reports)
        except Exception as error:  # noqa: BLE001 - one poisoned report must not hold up the others
            return error
        for waiting, item in zip(batch, recorded, strict=True):
            if not waiting.completion.done():  # else its sender gave up; the commit is valid
                resolve(waiting.completion, item)
        seconds = self._clock.monotonic() - started
        # Later, so that the next batch need not wait for it.
        asyncio.get_running_loop().call_soon(self._publish, reports, recorded, seconds)
        return None

    def _publish(self, reports: Sequence[Report], recorded: Sequence[Recorded], seconds: float) -> None:
        """Count and publish a commit. An error is only logged: the reports are committed, and others wait."""
        BATCH_SIZE.observe(len(reports))
        COMMIT_SECONDS.observe(seconds)
        try:
            self._recorder.note(reports, recorded)
        except Exception:
            log.exception("batch.not_noted", size=len(reports))

    async def _isolate(self, batch: list[PendingReport], error: Exception) -> None:
        """Record each report alone.

        If any other report, or an empty batch, can be recorded, the database works, and those that fail are the cause.
        """
        errors: list[Exception | None] = [error]
        if len(batch) == 1:
            is_well = await self._commit([]) is None
        else:
            log.warning("batch.split", size=len(batch), error=type(error).__name__)
            errors = [await self._commit([waiting]) for waiting in batch]
            is_well = None in errors
        for waiting, failed in zip(batch, errors, strict=True):
            if failed is None:
                continue
            report, name = waiting.report, type(failed).__name__
            ids = {"generation_id": report.generation_id, "event_id": report.event_id}
            log.error("report.not_recorded", **ids, error=name, source=report.source)  # evidence of a bug
            if isinstance(failed, DatabaseUnavailable):
                reject([waiting], failed)
            else:
                reject([waiting], RecordFailed() if is_well else DatabaseUnavailable(reason=name))
