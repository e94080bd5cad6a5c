"""Reads the event feed and writes what is to be sent to whom; one replica at a time does it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import Gauge
from sqlalchemy import delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.auth import Access, Role
from app.core.clock import Clock
from app.core.database import Database
from app.core.errors import RequestInvalid
from app.core.leases import Leadership, Leases
from app.core.waiters import until_set
from app.ledger import rows
from app.ledger.feed import LATEST, Event, Feed
from app.ledger.models import EventFilter, Generation, Outcome, Source, Transition
from app.ledger.recorder import Changes
from app.ledger.sql import is_among
from app.ledger.tables import callbacks, deliveries, generations, transitions
from app.notifications.events import event_body, is_deliverable, own_event_id
from app.notifications.models import CALLBACKS, NewNotification, Subscription
from app.notifications.repository import NotificationRepository, live_subscriptions, lock_dispatch, set_cursor

log = structlog.stdlib.get_logger(__name__)

PENDING = Gauge("receiver_notifications_pending", "Notifications that are to be sent, 5,001 at most.")
OLDEST = Gauge("receiver_notification_oldest_seconds", "Age of the oldest notification that is to be sent.")

EVENTS_AT_ONCE: Final = 200
_TERM: Final = timedelta(seconds=15)
_BETWEEN_LOOKS: Final = 1.0
"""Seconds while there is nothing to do."""
_BETWEEN_READS: Final = 0.5
"""Seconds, for the commits of other replicas."""
_BETWEEN_COMMITS: Final = 0.02
"""Commits of this process within this time are dispatched together."""
_BETWEEN_MEASUREMENTS: Final = 5.0

_d, _g = deliveries.c, generations.c
_LATEST_BODY: Final = (
    select(_d.body)
    .where(_d.outcome == Outcome.APPLIED, _d.body_pruned_at.is_(None))
    .order_by(_d.received_at.desc(), _d.event_id.desc())
    .limit(1)
)
_SETTLED: Final = (
    select(callbacks.c.generation_id, callbacks.c.token)
    .join(generations, _g.id == callbacks.c.generation_id)
    .where(_g.settled_at.is_not(None))
    .limit(EVENTS_AT_ONCE)
)
_TAKE_SETTLED: Final = (
    delete(callbacks).where(tuple_(callbacks.c.generation_id, callbacks.c.token).in_(_SETTLED)).returning(callbacks)
)


class Dispatcher:
    """`run_once` is one run of a supervised loop. While there is no endpoint and no callback it only looks for one."""

    def __init__(
        self,
        database: Database,
        repository: NotificationRepository,
        feed: Feed,
        changes: Changes,
        *,
        access: Access,
        leases: Leases,
        clock: Clock,
        on_pending: Callable[[], None],
    ) -> None:
        self._database = database
        self._repository = repository
        self._feed = feed
        self._access = access
        self._leadership = Leadership(leases, "notifications", clock=clock, term=_TERM)
        self._clock = clock
        self._on_pending = on_pending
        """Called when there is something to send."""
        self._woken = asyncio.Event()
        self._pause = 0.0
        self._measured_at: float | None = None
        self._changes = changes

    def wake(self) -> None:
        """Look at once for what is new."""
        self._woken.set()

    async def run_once(self) -> float:
        """Write what is new; returns the seconds until the next run. Raises `DatabaseUnavailable`."""
        await until_set(self._woken, self._pause)
        self._woken.clear()
        work = await self._repository.look()
        is_needed = work.has_subscriptions or work.has_callbacks
        self._pause = _BETWEEN_READS if is_needed else _BETWEEN_LOOKS
        if work.has_pending:
            self._on_pending()
        if self._is_time_to_measure():
            await self._measure(is_idle=not (work.has_pending or is_needed))
            if is_needed and self._leadership.is_held:
                await self._repository.clean_up(now=self._clock.now())
        if not is_needed:
            await self.stop()
        elif await self._leadership.lead():
            self._changes.commits.add(self._woken)
            is_more = [
                work.has_subscriptions and await self._dispatch_events(),
                work.has_callbacks and await self._dispatch_callbacks(),
            ]
            if any(is_more):
                self._woken.set()
        else:
            self._changes.commits.discard(self._woken)
        return _BETWEEN_COMMITS

    async def stop(self) -> None:
        """Let another replica go on at once. Raises `DatabaseUnavailable`."""
        self._changes.commits.discard(self._woken)
        await self._leadership.release()

    async def _dispatch_events(self) -> bool:
        """Write the notifications of the next events; returns whether there may be more."""
        known = await self._repository.cursor()
        if known is None:
            return False
        try:
            cursor = await self._feed.cursor(known)
        except RequestInvalid:  # of a feed with another key
            log.warning("notifications.gap", reason="cursor")
            latest = await self._feed.cursor(LATEST)
            await self._write([], known=known, following=self._feed.encode(latest))
            return False
        page = await self._feed.read(EventFilter(), after=cursor, limit=EVENTS_AT_ONCE)
        if page.gap:
            log.warning("notifications.gap", reason="removed")
        if page.events or page.gap:
            await self._write(page.events, known=known, following=self._feed.encode(page.next))
        return page.has_more

    async def _write(self, events: Sequence[Event], *, known: str, following: str) -> None:
        async with self._database.transaction() as connection:
            if await lock_dispatch(connection) != known:
                return  # another replica was first
            to, roles = await live_subscriptions(connection), self._access.roles()
            wanted = [(event, [each for each in to if wants(each, event, roles)]) for event in events]
            wanted = [(event, receivers) for event, receivers in wanted if receivers]
            bodies = await self._bodies(connection, [(it.transition, it.generation) for it, _ in wanted])
            new = [
                NewNotification.of(
                    each,
                    event_id=event_id,
                    event_type=f"generation.{event.transition.to_status}",
                    body=body,
                    generation_id=event.generation.id,
                    number=event.transition.number,
                )
                for (event, receivers), (event_id, body) in zip(wanted, bodies, strict=True)
                for each in receivers
            ]
            await self._repository.insert(connection, new, now=self._clock.now())
            await set_cursor(connection, following)
        if new:
            self._on_pending()

    async def _dispatch_callbacks(self) -> bool:
        """Write the notifications of the callbacks whose generation is settled; returns whether there may be more."""
        async with self._database.read() as connection:
            if (await connection.execute(_SETTLED.limit(1))).first() is None:
                return False
        async with self._database.transaction() as connection:
            await lock_dispatch(connection)
            due = (await connection.execute(_TAKE_SETTLED)).all()
            ids = [row.generation_id for row in due]
            outcomes = await self._outcomes(connection, ids)
            bodies = await self._bodies(connection, [outcomes[each] for each in ids])
            new = [
                NewNotification(
                    queue=f"{CALLBACKS}{row.token}",
                    callback_url=row.url,
                    token=row.token,
                    event_id=event_id,
                    event_type=f"generation.{outcomes[row.generation_id][0].to_status}",
                    generation_id=row.generation_id,
                    number=outcomes[row.generation_id][0].number,
                    body=body,
                )
                for row, (event_id, body) in zip(
                    [it for it in due if it.generation_id in outcomes], bodies, strict=True
                )
            ]
            await self._repository.insert(connection, new, now=self._clock.now())
        self._on_pending()
        return len(due) == EVENTS_AT_ONCE

    async def _outcomes(
        self, connection: AsyncConnection, ids: Sequence[str]
    ) -> dict[str, tuple[Transition, Generation]]:
        """The last transition of each of these generations."""
        is_one = is_among(_g.id, ids, is_sqlite=self._database.is_sqlite)
        is_last = (transitions.c.generation_id == _g.id) & (transitions.c.number == _g.last_number)
        statement = rows.SELECT_GENERATIONS.add_columns(*transitions.c).join(transitions, is_last).where(is_one)
        stored = (await connection.execute(statement)).mappings().all()
        return {row["id"]: (rows.to_transition(row), rows.to_generation(row)) for row in stored}

    async def _bodies(
        self, connection: AsyncConnection, what: Sequence[tuple[Transition, Generation]]
    ) -> list[tuple[str, bytes]]:
        """The event id and the body of each transition."""
        ids = [it.event_id for it, _ in what if it.event_id is not None and it.source is Source.WEBHOOK]
        is_one = is_among(_d.event_id, ids, is_sqlite=self._database.is_sqlite)
        stored = (await connection.execute(select(_d.event_id, _d.body).where(is_one))).all() if ids else ()
        delivered = {row.event_id: row.body for row in stored if is_deliverable(row.event_id, row.body)}
        like = None
        if any(it.event_id not in delivered for it, _ in what):
            like = (await connection.execute(_LATEST_BODY)).scalar_one_or_none()
        bodies = []
        for transition, generation in what:
            event_id, body = transition.event_id, delivered.get(transition.event_id or "")
            if event_id is None or body is None:
                event_id = own_event_id(generation.id, transition.number)
                body = event_body(transition, generation, event_id=event_id, like=like)
            bodies.append((event_id, body))
        return bodies

    def _is_time_to_measure(self) -> bool:
        now = self._clock.monotonic()
        if self._measured_at is not None and now - self._measured_at < _BETWEEN_MEASUREMENTS:
            return False
        self._measured_at = now
        return True

    async def _measure(self, *, is_idle: bool) -> None:
        count, since = (0, None) if is_idle else await self._repository.pending()
        PENDING.set(count)
        OLDEST.set(0 if since is None else max((self._clock.now() - since).total_seconds(), 0))


def wants(subscription: Subscription, event: Event, roles: Mapping[str, Role]) -> bool:
    """Whether an endpoint gets an event. `roles`: of the tokens that are valid now."""
    if event.cursor.position <= subscription.begins_after:
        return False
    if f"generation.{event.transition.to_status}" not in subscription.event_types:
        return False
    role = roles.get(subscription.token)
    return event.matches(subscription.chosen(is_fenced=None if role is None else role.is_fenced))
