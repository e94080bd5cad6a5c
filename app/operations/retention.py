"""Prunes what is older than RECEIVER_RETENTION_DAYS, in small batches with pauses, by one replica at a time."""

import collections
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, Final

import orjson
import structlog
from prometheus_client import Counter
from sqlalchemy import (
    CompoundSelect,
    Delete,
    Integer,
    Row,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.clock import Clock
from app.core.database import Database, UtcDateTime
from app.core.errors import DatabaseUnavailable
from app.core.ids import uuid7
from app.core.leases import Leadership, Leases
from app.ledger.models import Position, Status
from app.ledger.sql import BY_INDEX, TERMINAL, any_of
from app.ledger.tables import deliveries, generations
from app.submission.store import submissions

log = structlog.stdlib.get_logger(__name__)


# Rows are searched in a read transaction and removed in a short one of their own.
#
# The bodies are removed in the transaction that removes their generation and its history. The deliveries stay for a
# longer time, so that an event that comes again is recognised. Open generations and their deliveries are never touched.
# Locked rows are left for the next run: a transaction here never waits for a lock, so a delivery waits for one small
# transaction at most, and there are no deadlocks. A generation with a locked delivery stays too, so that no body
# outlives its generation. Of a create only the two bodies are emptied.


_g, _d, _s = generations.c, deliveries.c, submissions.c
_BEFORE: Final = bindparam("before", type_=UtcDateTime)
_MOST: Final = bindparam("most", type_=Integer)


def _settled_with(status: Status) -> Select[Any]:
    # A generation is settled after it is first seen, so the index scan can end at the limit. These conditions
    # and this order allow only the index by status: the one by time would read all older open rows in every batch.
    is_old = tuple_(_g.status, _g.first_seen_at) < tuple_(literal(status, _g.status.type), _BEFORE)
    old = (_g.status >= status, is_old, _g.settled_at < _BEFORE)
    return select(_g.id).where(*old).order_by(_g.status, _g.first_seen_at, _g.id).limit(_MOST)


SETTLED: Final = union_all(*(select(_settled_with(status).subquery()) for status in TERMINAL)).limit(_MOST)
"""Reads the index by status, the only one that separates settled rows from older open ones."""
_SUBMISSIONS_AT_ONCE: Final = 5000
_CLOCKS_DIFFER: Final = timedelta(hours=1)
_IN_ITS_ORDER: Final = text("SET LOCAL enable_sort = off")
_READ_PER_ROW: Final = 10
"""Deliveries read in one step, for each that it may empty."""

EXPIRED: Final = select(_d.event_id).where(_d.body_pruned_at < _BEFORE).order_by(_d.body_pruned_at).limit(_MOST)


class Pruning:
    """Removes or empties up to `most` old rows for each call. All methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock_generations = _lock_generations(is_sqlite=database.is_sqlite)
        self._bodies_of = _bodies_of(is_sqlite=database.is_sqlite)
        self._lock_bodies = _lock_bodies(is_sqlite=database.is_sqlite)
        self._clear = _clear(is_sqlite=database.is_sqlite)
        self._empty_submissions = _empty_submissions(is_sqlite=database.is_sqlite)
        self._remove_generations = _remove(_g.id, is_sqlite=database.is_sqlite)
        self._remove_deliveries = _remove(_d.event_id, is_sqlite=database.is_sqlite)

    async def settled_generations(self, before: datetime, *, most: int, now: datetime) -> int:
        """Remove generations settled before this, with histories and deliveries' bodies; returns how many it found."""
        ids = await self._find(SETTLED, {"before": before, "most": most})
        await self.generations(ids, now=now)
        return len(ids)

    async def generations(self, ids: Sequence[str], *, now: datetime, submissions: Sequence[str] = ()) -> int:
        """Remove these generations in any state; returns how many were removed: those that exist and are not locked.

        `submissions` are emptied in the same transaction.
        """
        if not ids and not submissions:
            return 0
        async with self._database.transaction() as connection:
            locked = set((await connection.execute(self._lock_generations, self._ids(ids))).scalars())
            theirs = (await connection.execute(self._bodies_of, self._ids(sorted(locked)))).all()
            bodies = await self._lock(connection, [row.event_id for row in theirs])
            removable = sorted(locked - {row.generation_id for row in theirs if row.event_id not in bodies})
            emptied = [row.event_id for row in theirs if row.generation_id in removable]
            await connection.execute(self._clear, {**self._ids(emptied), "now": now})
            await connection.execute(self._remove_generations, self._ids(removable))
            if len(removable) == len(ids):
                await connection.execute(self._empty_submissions, self._ids(submissions))
        return len(removable)

    async def bodies_of_none(
        self, before: datetime, *, after: Position | None, most: int, now: datetime
    ) -> tuple[Position | None, bool]:
        """Empty bodies that came before `before`, after the position `after`, and belong to no stored generation.

        Returns the position for the next call, and whether there may be more now. No row before that position is left
        to do: the position stops at a locked delivery, and a generation's deliveries are emptied together with it.
        """
        page = await self._read(_page(after), {"before": before, "most": most * _READ_PER_ROW})
        due = [row.event_id for row in page if row.is_due][:most]
        if len(due) == most:  # the rest of the page is for the next call
            page = page[: 1 + next(place for place, row in enumerate(page) if row.event_id == due[-1])]
        if due:
            async with self._database.transaction() as connection:
                locked = await self._lock(connection, due)
                await connection.execute(self._clear, {**self._ids(sorted(locked)), "now": now})
            page = list(takewhile(lambda row: not row.is_due or row.event_id in locked, page))
        if not page:
            return after, False
        return Position(page[-1].received_at, page[-1].event_id), True

    async def answered_submissions(self, before: datetime, *, after: str | None, most: int) -> tuple[str | None, bool]:
        """Empty both bodies of creates that were answered before `before`, after the id `after`.

        The key, the hash, the state and the generation's id stay, so that nothing is paid twice. Returns the id for the
        next call, and whether there may be more now. Open creates are skipped.
        """
        parameters = {"before": before, "after": after or "", "until": str(uuid7(before)), "most": most}
        page = await self._read(_ANSWERED, parameters)
        if due := [row.id for row in page if row.is_due]:
            async with self._database.transaction() as connection:
                await connection.execute(self._empty_submissions, self._ids(due))
        return (page[-1].id if page else after), len(page) == most

    async def submissions_of(self, generation_id: str, *, until: datetime) -> list[str]:
        """Ids of the creates of this generation that were stored before `until` and still have a body."""
        # There is no index by generation: read pages backwards by id, since ids sort by time.
        before: str | None = str(uuid7(until + _CLOCKS_DIFFER))
        while before is not None:
            page = await self._read(_SUBMITTED, {"until": before, "most": _SUBMISSIONS_AT_ONCE})
            if rows := [row for row in page if row.generation_id == generation_id]:
                return [row.id for row in rows if row.has_body]
            before = page[-1].id if page else None
        return []

    async def expired_deliveries(self, before: datetime, *, most: int) -> int:
        """Remove deliveries emptied before this; returns how many. Such an event, if sent again, counts as new."""
        ids = await self._find(EXPIRED, {"before": before, "most": most})
        if ids:
            async with self._database.transaction() as connection:
                await connection.execute(self._remove_deliveries, self._ids(ids))
        return len(ids)

    async def _find(self, statement: Select[Any] | CompoundSelect[Any], parameters: dict[str, Any]) -> Sequence[str]:
        return [row[0] for row in await self._read(statement, parameters)]

    async def _read(
        self, statement: Select[Any] | CompoundSelect[Any], parameters: dict[str, Any]
    ) -> Sequence[Row[Any]]:
        async with self._database.read() as connection:
            if not self._database.is_sqlite:  # PostgreSQL estimates a row comparison by its first column only
                await connection.execute(BY_INDEX)
                await connection.execute(_IN_ITS_ORDER)
            rows: Sequence[Row[Any]] = (await connection.execute(statement, parameters)).all()
            return rows

    async def _lock(self, connection: AsyncConnection, event_ids: Sequence[str]) -> set[str]:
        """Lock those that have a body and are not locked; returns their ids."""
        return set((await connection.execute(self._lock_bodies, self._ids(event_ids))).scalars())

    def _ids(self, ids: Sequence[str]) -> dict[str, Any]:
        return {"ids": orjson.dumps(list(ids)).decode() if self._database.is_sqlite else list(ids)}


def _page(after: Position | None) -> Select[Any]:
    # Emptied rows are included: a statement that filtered them out would read on until it has enough others.
    page = select(_d.event_id, _d.received_at, _d.body_pruned_at, _d.generation_id).where(_d.received_at < _BEFORE)
    if after is not None:
        position = tuple_(literal(after.at, _d.received_at.type), literal(after.id, _d.event_id.type))
        page = page.where(tuple_(_d.received_at, _d.event_id) > position)
    p = page.order_by(_d.received_at, _d.event_id).limit(_MOST).subquery("page").c
    is_due = and_(p.body_pruned_at.is_(None), ~exists().where(_g.id == p.generation_id))
    return select(p.event_id, p.received_at, is_due.label("is_due")).order_by(p.received_at, p.event_id)


_UNTIL: Final = bindparam("until", type_=Text)
_HAS_BODY: Final = or_(func.length(_s.request) > 0, _s.response.is_not(None))
_ANSWERED: Final = (
    select(_s.id, and_(_s.resolved_at < _BEFORE, _HAS_BODY).label("is_due"))
    .where(_s.id > bindparam("after", type_=Text), _s.id < _UNTIL)
    .order_by(_s.id)
    .limit(_MOST)
)
_SUBMITTED: Final = (
    select(_s.id, _s.generation_id, _HAS_BODY.label("has_body"))
    .where(_s.id < _UNTIL)
    .order_by(_s.id.desc())
    .limit(_MOST)
)


def _lock_generations(*, is_sqlite: bool) -> Select[Any]:
    return select(_g.id).where(any_of(_g.id, "ids", is_sqlite=is_sqlite)).with_for_update(skip_locked=True)


def _bodies_of(*, is_sqlite: bool) -> Select[Any]:
    theirs = any_of(_d.generation_id, "ids", is_sqlite=is_sqlite)
    return select(_d.event_id, _d.generation_id).where(theirs, _d.body_pruned_at.is_(None))


def _lock_bodies(*, is_sqlite: bool) -> Select[Any]:
    these = any_of(_d.event_id, "ids", is_sqlite=is_sqlite)
    return select(_d.event_id).where(these, _d.body_pruned_at.is_(None)).with_for_update(skip_locked=True)


def _clear(*, is_sqlite: bool) -> Update:
    # The headers are emptied too: a signature proves nothing without the signed body.
    emptied = {"body": b"", "headers": "{}", "body_pruned_at": bindparam("now", type_=UtcDateTime)}
    return update(deliveries).where(any_of(_d.event_id, "ids", is_sqlite=is_sqlite)).values(emptied)


def _empty_submissions(*, is_sqlite: bool) -> Update:
    # A create that is being sent again keeps the request that is sent.
    chosen = any_of(_s.id, "ids", is_sqlite=is_sqlite) & _s.next_attempt_at.is_(None)
    return update(submissions).where(chosen).values(request=b"", response=None, last_error=None)


def _remove(key: Any, *, is_sqlite: bool) -> Delete:  # noqa: ANN401 - a column
    return delete(key.table).where(any_of(key, "ids", is_sqlite=is_sqlite))


KEYS_KEPT: Final = timedelta(days=30)
"""For this time after its body is emptied, an event that comes again is recognised, and changes nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The times before which rows are removed."""

    settled_before: datetime
    """For generations by their settlement, and for the bodies of deliveries without a generation by their arrival."""
    pruned_before: datetime
    """For deliveries by the time at which their bodies were emptied."""


def limits(now: datetime, *, days: int) -> Limits | None:
    """The limits at `now`, with settled rows kept for `days`; None if all rows are kept (0)."""
    return Limits(now - timedelta(days=days), now - KEYS_KEPT) if days > 0 else None


PRUNED = Counter("receiver_pruned", "Rows removed or emptied for their age.", ["what"])

LEASE: Final = "retention"
TERM: Final = timedelta(seconds=60)
SHARE: Final = 0.1
SHARE_OF_ONE_WRITER: Final = 0.02
"""On SQLite, where one writer blocks all others."""
MOST: Final = 100
"""Generations in one transaction; a delivery may have to wait for it on SQLite."""

_SHORTEST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 10.0
_OTHERS_AT_WORK: Final = 60.0
_REST: Final = 600.0
_BETWEEN_WALKS: Final = timedelta(days=1)
_OFF: Final = 3600.0
_QUERY_CANCELED: Final = "57014"

Kind = Callable[[Limits, int], Awaitable[bool]]
"""Prunes up to this number of rows of a kind; returns whether there may be more."""


class Retention:
    """Prunes one batch of each kind per run, if this replica has the lease."""

    def __init__(self, pruning: Pruning, leases: Leases, *, clock: Clock, days: int, share: float, most: int) -> None:
        self._pruning = pruning
        self._leadership = Leadership(leases, LEASE, clock=clock, term=TERM)
        self._clock = clock
        self._days = days
        self._share = share
        """The part of the time, from 0 to 1, that pruning may take: deliveries share the database's writer with it."""
        self._most = most
        self._batches: dict[str, int] = {}
        """Rows in one transaction for each kind; smaller after a statement timeout."""
        self._after: Position | None = None
        """Bodies up to this position are done. A new process begins at the oldest."""
        self._submitted: str | None = None
        self._walk_began: datetime | None = None
        """When the current pass over the creates began. Each day has a new one, for those that were open before."""
        self._counts: collections.Counter[str] = collections.Counter()

    async def run_once(self) -> float:
        """Prune one batch of each kind; returns the seconds until the next run. Raises `DatabaseUnavailable`."""
        old = limits(self._clock.now(), days=self._days)
        if old is None:
            return _OFF
        if not await self._leadership.lead():
            return _OTHERS_AT_WORK
        began = self._clock.monotonic()
        if await self._prune(old):
            took = self._clock.monotonic() - began
            return min(max(took / self._share - took, _SHORTEST_PAUSE), _LONGEST_PAUSE)
        await self.stop()
        self._log_counts()
        return _REST

    async def stop(self) -> None:
        """Release the lease, so that another replica can go on at once. Raises `DatabaseUnavailable`."""
        await self._leadership.release()

    async def _prune(self, old: Limits) -> bool:
        """Prune each kind once; returns whether there may be more."""
        kinds = {
            "generations": self._generations,
            "bodies": self._bodies,
            "deliveries": self._deliveries,
            "submissions": self._submissions,
        }
        return any([await self._attempt(kind, prune, old) for kind, prune in kinds.items()])

    async def _attempt(self, kind: str, prune: Kind, old: Limits) -> bool:
        """Prune one batch; after a statement timeout the next batch is smaller."""
        most = self._batches.get(kind, self._most)
        try:
            is_more = await prune(old, most)
        except DatabaseUnavailable as error:
            if not is_statement_timeout(error):
                raise
            self._batches[kind] = max(most // 4, 1)
            log.warning("retention.timed_out", what=kind, reason=error.reason, batch=most, next=self._batches[kind])
            await self._leadership.lead()  # the other kinds come next, and the lease may expire soon
            return most > 1
        self._batches[kind] = min(most * 2, self._most)
        return is_more

    async def _generations(self, old: Limits, most: int) -> bool:
        now = self._clock.now()
        pruned = await self._pruning.settled_generations(old.settled_before, most=most, now=now)
        self._count("generations", pruned)
        return pruned == most

    async def _bodies(self, old: Limits, most: int) -> bool:
        now = self._clock.now()
        self._after, is_more = await self._pruning.bodies_of_none(
            old.settled_before, after=self._after, most=most, now=now
        )
        return is_more

    async def _deliveries(self, old: Limits, most: int) -> bool:
        pruned = await self._pruning.expired_deliveries(old.pruned_before, most=most)
        self._count("deliveries", pruned)
        return pruned == most

    async def _submissions(self, old: Limits, most: int) -> bool:
        now = self._clock.now()
        if self._walk_began is None or now - self._walk_began >= _BETWEEN_WALKS:
            self._walk_began, self._submitted = now, None
        self._submitted, is_more = await self._pruning.answered_submissions(
            old.settled_before, after=self._submitted, most=most
        )
        return is_more

    def _count(self, what: str, rows: int) -> None:
        if rows:
            PRUNED.labels(what).inc(rows)
            self._counts[what] += rows

    def _log_counts(self) -> None:
        if self._counts:
            log.info("retention.pruned", days=self._days, **self._counts)
            self._counts.clear()


def is_statement_timeout(error: DatabaseUnavailable) -> bool:
    """Whether the database cancelled a statement because it took too long."""
    cause = error.__cause__
    return getattr(getattr(cause, "orig", cause), "sqlstate", None) == _QUERY_CANCELED
