"""Records reports in the database and informs those who wait for the changes."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from app.core.database import Database
from app.core.drivers import RawPostgres
from app.core.errors import DatabaseUnavailable, ServiceError
from app.core.sqlite import RawSqlite
from app.core.waiters import Waiters
from app.ledger.decide import FirstPoll, Recorded, plan
from app.ledger.metrics import Activity, log_recorded
from app.ledger.models import Report, Transition
from app.ledger.postgres import PostgresRecord, WriteConflict
from app.ledger.sqlite import SqliteRecord


class RecordFailed(ServiceError):
    """This one report can't be recorded, though the database is available."""

    status = 503
    code = "not_recorded"

    def __init__(self) -> None:
        super().__init__("This could not be recorded; it has been logged.", retry_after=60)


class BatchRecorder(Protocol):
    """Records a batch in one transaction: `app.ledger.recorder.Recorder`."""

    async def commit(self, reports: Sequence[Report]) -> list[Recorded]:
        """Record all reports or none, and return the result of each."""

    def note(self, reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
        """Count, log and publish what was committed."""


class Changes(Waiters):
    """Wakes those who wait for a generation as soon as a commit of this process changes it."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: set[asyncio.Event] = set()
        """Events that are set after each commit of this process that changes a generation."""
        self.listeners: set[Callable[[Transition], None]] = set()
        """Called with every transition that this process commits; they must not raise."""

    def publish(self, recorded: Iterable[Recorded]) -> None:
        """Wake and inform those who wait for what was committed."""
        transitions = [item.transition for item in recorded if item.transition is not None]
        if transitions:
            for event in self.commits:
                event.set()
        for transition in transitions:
            if transition.generation_id in self._waiting:
                self.wake(transition.generation_id)
            for listener in self.listeners:
                listener(transition)

    @contextmanager
    def listen(self) -> Iterator[asyncio.Queue[Transition]]:
        """A queue that gets every transition that this process commits, in order."""
        queue: asyncio.Queue[Transition] = asyncio.Queue()
        self.listeners.add(queue.put_nowait)
        try:
            yield queue
        finally:
            self.listeners.discard(queue.put_nowait)


_TRIES = 5


class Recorder:
    """Records reports in the database and publishes transitions to `changes`; every report enters the ledger here."""

    def __init__(
        self,
        database: Database,
        *,
        first_poll: FirstPoll,
        changes: Changes,
        activity: Activity | None = None,
        on_postgres: Callable[[RawPostgres], PostgresRecord] = PostgresRecord,
    ) -> None:
        direct = database.direct
        self._store = SqliteRecord(direct) if isinstance(direct, RawSqlite) else on_postgres(direct)
        self._first_poll = first_poll
        self._changes = changes
        self._activity = activity

    async def record(self, reports: Sequence[Report]) -> list[Recorded]:
        """Call `commit` and `note`, and return the result of each report. Raises `DatabaseUnavailable`."""
        recorded = await self.commit(reports)
        self.note(reports, recorded)
        return recorded

    async def commit(self, reports: Sequence[Report]) -> list[Recorded]:
        """Record `reports` in one transaction, all or none, and return the result of each, in their order.

        Recording the same report again changes only counts: a delivery's attempts, a generation's polls. If another
        process changes the same generations at the same time, tries again with these locked, in the order of their ids.
        Raises `DatabaseUnavailable` when every try failed.
        """
        decide = partial(plan, reports, first_poll=self._first_poll)
        for record in (self._store.record, *[self._store.record_locked] * _TRIES):
            try:
                written = await record(reports, decide)
            except WriteConflict:
                continue
            return written.recorded
        raise DatabaseUnavailable

    def note(self, reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
        """Count, log and publish what was committed."""
        log_recorded(reports, recorded)
        self._changes.publish(recorded)
        if self._activity is not None:
            self._activity.add(reports, recorded)
