"""Prunes what is older than RECEIVER_RETENTION_DAYS, in small batches with pauses, by one replica at a time."""

import collections
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.clock import Clock
from app.core.database import Database, UtcDateTime
from app.core.errors import DatabaseUnavailable
from app.core.leases import Leadership, Leases
from app.core.pagination import BY_INDEX, IN_ORDER
from app.core.records import uuid7
from app.ledger import decide, rows
from app.ledger.models import Generation, Position
from app.ledger.sql import any_of, events_of, ids_parameter
from app.ledger.tables import NOT_PRUNED, callbacks, deliveries, feed, generations, polls, transitions, usage_changes
from app.notifications.repository import lock_dispatch
from app.notifications.tables import notifications
from app.submission.store import submissions
from app.tokens.spending import token_spending

log = structlog.stdlib.get_logger(__name__)

# Rows are searched in a read transaction and removed in a short one of their own.
#
# The bodies are removed in the transaction that removes their generation and its history. The deliveries stay for a
# longer time, so that an event that comes again is recognised. Open generations and their deliveries are never touched.
# Locked rows are left for the next pass: a transaction here never waits for a lock, so a delivery waits for one small
# transaction at most, and there are no deadlocks. A generation with a locked delivery stays too, so that no body
# outlives its generation. Of a create only the two bodies are emptied.

_g, _d, _s, _n = generations.c, deliveries.c, submissions.c, notifications.c
_BEFORE: Final = sa.bindparam("before", type_=UtcDateTime)
_MOST: Final = sa.bindparam("most", type_=sa.Integer)
_READ_PER_ROW: Final = 10
"""Rows read in one step, for each that it may remove."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a pass over all rows of a kind, in their order."""

    after: Any = None
    """The place at which the next step begins; None at the end of the pass."""
    due: Sequence[str] = ()
    """The keys of the rows that are old enough."""


class Pruning:
    """Removes or empties old rows. All methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._among = partial(any_of, parameter="ids", is_sqlite=database.is_sqlite)

    async def step(self, statement: sa.Select[Any], most: int, **parameters: Any) -> Step:  # noqa: ANN401 - its own
        """The next `most` rows, or fewer, that are old enough, of a page of `statement`."""
        page = await self._read(statement, {**parameters, "most": most * _READ_PER_ROW})
        if not page:
            return Step()
        due = [row for row in page if row.is_due][:most]
        last = due[-1] if len(due) == most else page[-1]  # the rest of the page is for the next step
        after = Position(last.at, last.key) if hasattr(last, "at") else last.key
        return Step(after, [row.key for row in due])

    async def generations(self, ids: Sequence[str], *, now: datetime, submissions: Sequence[str] = ()) -> int:
        """Remove these generations in any state; returns how many were removed: those that exist and are not locked.

        `submissions` are emptied in the same transaction.
        """
        if not ids and not submissions:
            return 0
        async with self._database.transaction() as connection:
            if not self._database.is_sqlite:
                await connection.execute(BY_INDEX)
            stored = rows.SELECT_GENERATIONS.where(self._among(_g.id)).with_for_update(skip_locked=True, of=generations)
            free = (await connection.execute(stored, self._ids(ids))).mappings()
            locked = {row["id"]: rows.to_generation(row) for row in free}
            with_bodies = sa.select(_d.event_id, _d.generation_id).where(
                _d.event_id.in_(events_of(self._among)), _d.body_pruned_at.is_(None)
            )
            theirs = (await connection.execute(with_bodies, self._ids(locked))).all()
            unlocked = await self._lock_bodies(connection, [row.event_id for row in theirs])
            busy = {row.generation_id for row in theirs if row.event_id not in unlocked}
            removable = {key: one for key, one in locked.items() if key not in busy}
            await self._clear(connection, [row.event_id for row in theirs if row.generation_id in removable], now)
            await self._remove(connection, removable)
            if len(removable) == len(ids):
                await self._empty_submissions(connection, submissions)
        return len(removable)

    async def bodies(self, event_ids: Sequence[str], *, now: datetime) -> None:
        """Empty the bodies of these deliveries, except those that are locked."""
        async with self._database.transaction() as connection:
            await self._clear(connection, sorted(await self._lock_bodies(connection, event_ids)), now)

    async def submissions(self, ids: Sequence[str]) -> None:
        """Empty both bodies of these creates, except those that are sent again.

        The key, the hash, the state and the generation's id stay, so that nothing is paid twice.
        """
        async with self._database.transaction() as connection:
            await self._empty_submissions(connection, ids)

    async def submissions_of(self, generation_id: str) -> list[str]:
        """Ids of the creates of this generation that still have a body."""
        return [row.id for row in await self._read(_SUBMITTED, {"generation_id": generation_id})]

    async def expired_deliveries(self, before: datetime, *, most: int) -> int:
        """Remove deliveries emptied before this; returns how many. Such an event, if sent again, counts as new."""
        ids = [row.event_id for row in await self._read(EXPIRED, {"before": before, "most": most})]
        if ids:
            async with self._database.transaction() as connection:
                await connection.execute(sa.delete(deliveries).where(self._among(_d.event_id)), self._ids(ids))
        return len(ids)

    async def spending(self, before: datetime) -> int:
        """Remove what tokens spent in days and months that ended before this month; returns how many sums."""
        old = token_spending.c.period < f"{before:%Y-%m}"  # 2026-05 sorts before 2026-05-10, and that before 2026-06
        async with self._database.transaction() as connection:
            return (await connection.execute(sa.delete(token_spending).where(old))).rowcount

    async def expired_notifications(self, before: datetime, *, most: int) -> int:
        """Remove notifications that ended before this; returns how many."""
        ids = [row.id for row in await self._read(EXPIRED_NOTIFICATIONS, {"before": before, "most": most})]
        if ids:
            async with self._database.transaction() as connection:
                await lock_dispatch(connection)
                await connection.execute(sa.delete(notifications).where(self._among(_n.id)), self._ids(ids))
        return len(ids)

    async def notifications_of(self, generation_id: str) -> None:
        """Remove what was sent, or is to be sent, about this generation."""
        async with self._database.transaction() as connection:
            await lock_dispatch(connection)
            for column in (_n.generation_id, callbacks.c.generation_id):
                await connection.execute(sa.delete(column.table).where(column == generation_id))

    async def _read(self, statement: sa.Select[Any], parameters: dict[str, Any]) -> Sequence[sa.Row[Any]]:
        async with self._database.read(plan=IN_ORDER) as connection:
            stored: Sequence[sa.Row[Any]] = (await connection.execute(statement, parameters)).all()
            return stored

    async def _lock_bodies(self, connection: AsyncConnection, event_ids: Sequence[str]) -> set[str]:
        """Lock those that have a body and are not locked; returns their ids."""
        these = sa.select(_d.event_id).where(self._among(_d.event_id), _d.body_pruned_at.is_(None))
        return set((await connection.execute(these.with_for_update(skip_locked=True), self._ids(event_ids))).scalars())

    async def _clear(self, connection: AsyncConnection, event_ids: Sequence[str], now: datetime) -> None:
        # The headers are emptied too: a signature proves nothing without the signed body.
        emptied = {"body": b"", "headers": "{}", "body_pruned_at": now}
        await connection.execute(
            sa.update(deliveries).where(self._among(_d.event_id)).values(emptied), self._ids(event_ids)
        )

    async def _remove(self, connection: AsyncConnection, stored: dict[str, Generation]) -> None:
        if changed := decide.usage_changes((generation, None) for generation in stored.values()):
            values = [dict(zip(rows.USAGE_COLUMNS, change, strict=True)) for change in changed]
            await connection.execute(sa.insert(usage_changes), values)
        for column in (polls.c.generation_id, _g.id):
            await connection.execute(sa.delete(column.table).where(self._among(column)), self._ids(stored))
        of_these = self._among(transitions.c.generation_id)
        removing = sa.delete(transitions).where(of_these).returning(transitions.c.feed_position)
        last = max((await connection.execute(removing, self._ids(stored))).scalars(), default=0)
        # Readers of the feed get to know that something is missing.
        moved = sa.update(feed).where(feed.c.removed_through < last).values(removed_through=last)
        await connection.execute(moved)

    async def _empty_submissions(self, connection: AsyncConnection, ids: Sequence[str]) -> None:
        # A create that is being sent again keeps the request that is sent.
        chosen = self._among(_s.id) & _s.next_attempt_at.is_(None)
        emptied = (
            sa.update(submissions).where(chosen).values(request=b"", response=None, last_error=None, callback_url=None)
        )
        await connection.execute(emptied, self._ids(ids))

    def _ids(self, ids: Sequence[str] | dict[str, Any]) -> dict[str, Any]:
        return {"ids": ids_parameter(list(ids), is_sqlite=self._database.is_sqlite)}


def generation_page(after: Position | None) -> sa.Select[Any]:
    """At most `:most` generations after this position, oldest first, and which were settled before `:before`."""
    # A generation is settled after it is first seen, so a pass ends there. No index tells open ones apart: few are old.
    is_due = sa.func.coalesce(_g.settled_at < _BEFORE, False)
    page = sa.select(_g.id.label("key"), _g.first_seen_at.label("at"), is_due.label("is_due"))
    return _page(page, _g.first_seen_at, _g.id, after)


def body_page(after: Position | None) -> sa.Select[Any]:
    """At most `:most` deliveries with bodies after this position, and which belong to no generation."""
    is_due = ~sa.exists().where(_g.id == _d.generation_id)
    page = sa.select(_d.event_id.label("key"), _d.received_at.label("at"), is_due.label("is_due")).where(NOT_PRUNED)
    return _page(page, _d.received_at, _d.event_id, after)


def _page(
    page: sa.Select[Any], at: sa.ColumnElement[datetime], key: sa.ColumnElement[str], after: Position | None
) -> sa.Select[Any]:
    if after is not None:
        page = page.where(sa.tuple_(at, key) > sa.tuple_(sa.literal(after.at, at.type), sa.literal(after.id, key.type)))
    return page.where(at < _BEFORE).order_by(at, key).limit(_MOST)


EXPIRED: Final = sa.select(_d.event_id).where(_d.body_pruned_at < _BEFORE).order_by(_d.body_pruned_at).limit(_MOST)
EXPIRED_NOTIFICATIONS: Final = sa.select(_n.id).where(_n.ended_at < _BEFORE).order_by(_n.ended_at).limit(_MOST)
_HAS_BODY: Final = sa.or_(sa.func.length(_s.request) > 0, _s.response.is_not(None))
_ANSWERED: Final = (
    sa.select(_s.id.label("key"), sa.and_(_s.resolved_at < _BEFORE, _HAS_BODY).label("is_due"))
    .where(_s.id > sa.bindparam("after", type_=sa.Text), _s.id < sa.bindparam("until", type_=sa.Text))
    .order_by(_s.id)
    .limit(_MOST)
)
_SUBMITTED: Final = sa.select(_s.id).where(_s.generation_id == sa.bindparam("generation_id"), _HAS_BODY)

KEYS_KEPT: Final = timedelta(days=30)
"""For this time after its body is emptied, an event that comes again is recognised, and changes nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The times before which rows are removed."""

    settled_before: datetime
    """For generations by their settlement, for the bodies of deliveries without a generation by their arrival, and for
    notifications by their end."""
    pruned_before: datetime
    """For deliveries by the time at which their bodies were emptied."""


def limits(now: datetime, *, days: int) -> Limits | None:
    """The limits at `now`, with settled rows kept for `days`; None if all rows are kept (0)."""
    return Limits(now - timedelta(days=days), now - KEYS_KEPT) if days > 0 else None


PRUNED = Counter("receiver_pruned", "Rows removed or emptied for their age.", ["what"])

_TERM: Final = timedelta(seconds=60)
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
        self._leadership = Leadership(leases, "retention", clock=clock, term=_TERM)
        self._clock = clock
        self._days = days
        self._share = share
        """The part of the time, from 0 to 1, that pruning may take: deliveries share the database's writer with it."""
        self._most = most
        self._batches: dict[str, int] = {}
        """Rows in one transaction for each kind; smaller after a statement timeout."""
        self._after: dict[str, Any] = {}
        """The place at which the pass over each kind goes on."""
        self._walk_began: datetime | None = None
        """When the current pass over the creates began. They are never removed, so there is one pass a day.

        With it go the sums of what tokens spent.
        """
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
        if self._counts:
            log.info("retention.pruned", days=self._days, **self._counts)
            self._counts.clear()
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
            "notifications": self._notifications,
        }
        return any([await self._attempt(kind, prune, old) for kind, prune in kinds.items()])

    async def _attempt(self, kind: str, prune: Kind, old: Limits) -> bool:
        """Prune one batch; after a statement timeout the next batch is smaller."""
        most = self._batches.get(kind, self._most)
        try:
            is_more = await prune(old, most)
        except DatabaseUnavailable as error:
            cause = error.__cause__
            if getattr(getattr(cause, "orig", cause), "sqlstate", None) != _QUERY_CANCELED:
                raise
            self._batches[kind] = max(most // 4, 1)
            log.warning("retention.timed_out", what=kind, reason=error.reason, batch=most, next=self._batches[kind])
            await self._leadership.lead()  # the other kinds come next, and the lease may expire soon
            return most > 1
        self._batches[kind] = min(most * 2, self._most)
        return is_more

    async def _generations(self, old: Limits, most: int) -> bool:
        page = generation_page(self._after.get("generations"))
        step = await self._pruning.step(page, most, before=old.settled_before)
        self._count("generations", await self._pruning.generations(step.due, now=self._clock.now()))
        return self._go_on("generations", step)

    async def _bodies(self, old: Limits, most: int) -> bool:
        step = await self._pruning.step(body_page(self._after.get("bodies")), most, before=old.settled_before)
        if step.due:
            await self._pruning.bodies(step.due, now=self._clock.now())
        return self._go_on("bodies", step)

    async def _deliveries(self, old: Limits, most: int) -> bool:
        pruned = await self._pruning.expired_deliveries(old.pruned_before, most=most)
        self._count("deliveries", pruned)
        return pruned == most

    async def _notifications(self, old: Limits, most: int) -> bool:
        pruned = await self._pruning.expired_notifications(old.settled_before, most=most)
        self._count("notifications", pruned)
        return pruned == most

    async def _submissions(self, old: Limits, most: int) -> bool:
        now = self._clock.now()
        if self._after.get("submissions") is None:
            if self._walk_began is not None and now - self._walk_began < _BETWEEN_WALKS:
                return False
            self._walk_began = now
            self._count("token_spending", await self._pruning.spending(old.settled_before))
        before, after = old.settled_before, self._after.get("submissions") or ""
        step = await self._pruning.step(_ANSWERED, most, before=before, after=after, until=str(uuid7(before)))
        if step.due:
            await self._pruning.submissions(step.due)
        return self._go_on("submissions", step)

    def _go_on(self, kind: str, step: Step) -> bool:
        self._after[kind] = step.after
        return step.after is not None

    def _count(self, what: str, count: int) -> None:
        if count:
            PRUNED.labels(what).inc(count)
            self._counts[what] += count
