"""The transactions of programs' endpoints, and of the notifications that are written, listed and sent again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from sqlalchemy import (
    ColumnElement,
    RowMapping,
    and_,
    delete,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.audit import Actor, write_audit
from app.core.database import Database
from app.core.errors import NotFound, RequestInvalid
from app.core.pagination import BY_INDEX, IN_ORDER, IdPage, Part, Walk, read_page
from app.core.records import uuid7, uuid7_beginning
from app.ledger.sql import is_among
from app.ledger.tables import callbacks
from app.notifications.events import alarm_body
from app.notifications.models import (
    CALLBACKS,
    HOLD,
    EventType,
    NewNotification,
    NotificationState,
    Subscription,
    SubscriptionStatus,
)
from app.notifications.tables import NOT_DELIVERED, OPEN, notification_dispatch, notifications, subscriptions
from app.tokens.repository import tokens

MOST_PER_TOKEN: Final = 100
"""Endpoints of one token."""
MOST_RESENT: Final = 10_000
"""Notifications in one call."""
MOST_COUNTED: Final = 5001
_DELETED_KEPT: Final = timedelta(days=1)
"""Longer than any attempt that is under way."""
FAILURES_TO_SHOW: Final = 3
"""In a row, from which on an endpoint counts as failing."""

_n, _s = notifications.c, subscriptions.c
_CURSOR: Final = select(notification_dispatch.c.cursor).where(notification_dispatch.c.name == "events")
_LIVE: Final = _s.status != SubscriptionStatus.REVOKED
_PENDING: Final = _n.state == literal_column("'pending'")


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationFilter:
    """Which notifications are listed; None does not filter."""

    token: str | None = None
    """Only those of this token."""
    endpoint_id: str | None = None
    state: NotificationState | None = None
    generation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do, as one look shows it."""

    has_subscriptions: bool
    has_callbacks: bool
    has_pending: bool


async def lock_dispatch(connection: AsyncConnection) -> str | None:
    """Lock all changes of states until the end of the transaction; returns how far the feed is dispatched."""
    cursor: str | None = (await connection.execute(_CURSOR.with_for_update())).scalar_one()
    return cursor


async def set_cursor(connection: AsyncConnection, cursor: str | None) -> None:
    """Set how far the feed is dispatched; None: nobody asks for it."""
    named = update(notification_dispatch).where(notification_dispatch.c.name == "events")
    await connection.execute(named.values(cursor=cursor))


# In this order, which an EXISTS would not keep, the pending ones are read from their index, whatever is expected.
LOOK: Final = select(
    select(_s.id).where(_LIVE).limit(1).scalar_subquery().label("subscription"),
    select(callbacks.c.generation_id).limit(1).scalar_subquery().label("callback"),
    select(_n.queue).where(_PENDING).order_by(_n.queue).limit(1).scalar_subquery().label("pending"),
)


class NotificationRepository:
    """Every method raises `DatabaseUnavailable`. `token` confines a method to what belongs to that token."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Endpoints

    async def create(self, subscription: Subscription, actor: Actor, *, cursor: str) -> None:
        """Store a new endpoint. `cursor`: its place in the feed. Raises `RequestInvalid` if its token has too many."""
        async with self._database.transaction() as connection:
            dispatched = await lock_dispatch(connection)
            theirs = select(func.count()).where(_s.token == subscription.token, _LIVE)
            if (await connection.execute(theirs)).scalar_one() >= MOST_PER_TOKEN:
                raise RequestInvalid(f"Token {subscription.token} has {MOST_PER_TOKEN} webhooks: delete one first.")
            await connection.execute(subscriptions.insert().values(subscription_row(subscription)))
            if dispatched is None:
                await set_cursor(connection, cursor)
            now, url = subscription.created_at, subscription.url
            await write_audit(connection, actor, "webhook.created", now=now, target=subscription.id, detail=url)

    async def subscriptions(self, *, token: str | None) -> Sequence[Subscription]:
        """All endpoints but the deleted ones, oldest first."""
        statement = select(subscriptions).where(_LIVE, *_of_token(_s.token, token)).order_by(_s.created_at, _s.id)
        async with self._database.read_for_caller() as connection:
            return [to_subscription(row) for row in (await connection.execute(statement)).mappings()]

    async def failing_subscriptions(self, *, token: str | None, limit: int) -> Sequence[Subscription]:
        """Endpoints that fail, or were disabled as they did, with the most failures first."""
        is_failing = or_(
            and_(_s.status == SubscriptionStatus.ACTIVE, _s.failure_count >= FAILURES_TO_SHOW),
            and_(_s.status == SubscriptionStatus.DISABLED, _s.failure_count > 0),
        )
        statement = select(subscriptions).where(is_failing, *_of_token(_s.token, token)).limit(limit)
        async with self._database.read_for_caller() as connection:
            rows = await connection.execute(statement.order_by(_s.failure_count.desc(), _s.id))
            return [to_subscription(row) for row in rows.mappings()]

    async def get(self, subscription_id: str, *, token: str | None) -> Subscription:
        """One endpoint. Raises `NotFound`, also for a deleted one."""
        async with self._database.read_for_caller() as connection:
            return await _find(connection, subscription_id, token)

    async def change(
        self, subscription_id: str, changes: dict[str, Any], actor: Actor, *, token: str | None, now: datetime
    ) -> Subscription:
        """Change columns of an endpoint, and what is sent to it if its status changes. Raises `NotFound`."""
        async with self._database.transaction() as connection:
            await lock_dispatch(connection)
            stored = await _find(connection, subscription_id, token)
            values = {name: value for name, value in changes.items() if value != getattr(stored, name)}
            if not values:
                return stored
            if (status := values.get("status")) is not None:
                values |= await set_status(connection, stored.id, SubscriptionStatus(status), now=now)
            written = {**values, "updated_at": now}
            if "event_types" in written:
                written["event_types"] = orjson.dumps(written["event_types"]).decode()
            await connection.execute(update(subscriptions).where(_s.id == stored.id).values(written))
            shown = " ".join(f"{name}={value}" for name, value in changes.items() if name in values)
            await write_audit(connection, actor, "webhook.updated", now=now, target=stored.id, detail=shown)
            return await _find(connection, subscription_id, token)

    async def rotate(
        self, subscription_id: str, *, sealed: str, preview: str, actor: Actor, token: str | None, now: datetime
    ) -> Subscription:
        """Give an endpoint a new secret; the one before signs too for some time. Raises `NotFound`."""
        async with self._database.transaction() as connection:
            stored = await _find(connection, subscription_id, token, is_locked=True)
            values = {
                "secret": sealed,
                "secret_preview": preview,
                "previous_secret": stored.secret,
                "rotated_at": now,
                "updated_at": now,
            }
            await connection.execute(update(subscriptions).where(_s.id == stored.id).values(values))
            await write_audit(connection, actor, "webhook.rotated", now=now, target=stored.id)
            return await _find(connection, subscription_id, token)

    async def delete(self, subscription_id: str, actor: Actor, *, token: str | None, now: datetime) -> None:
        """Delete an endpoint: nothing more is sent to it. Raises `NotFound`."""
        async with self._database.transaction() as connection:
            await lock_dispatch(connection)
            stored = await _find(connection, subscription_id, token)
            await _revoke(connection, [stored.id], now=now)
            await write_audit(connection, actor, "webhook.deleted", now=now, target=stored.id)

    # Notifications

    async def list_notifications(self, chosen: NotificationFilter, *, after: str | None, limit: int) -> IdPage:
        """At most `limit` rows that come after the row with the id `after`, newest first, without bodies."""
        statement = select(*(column for column in _n if column.name != "body"))
        wanted: dict[str, object] = {
            name: value
            for name, value in (
                ("subscription_id", chosen.endpoint_id),
                ("token", chosen.token),
                ("state", chosen.state),
            )
            if value is not None
        }
        among, plan = None, IN_ORDER
        if chosen.generation_id is not None:
            plan = BY_INDEX  # they are few, and are sorted
            statement = statement.where(_n.generation_id == chosen.generation_id)
        elif chosen.state not in (None, NotificationState.DELIVERED):
            statement = statement.where(NOT_DELIVERED)
        elif (name := next(iter(wanted), "state")) != "state":
            among = (_n[name], wanted.pop(name))
        async with self._database.read_for_caller(plan=plan) as connection:
            walk, part = Walk(statement, (_n.id,), among), Part(None if after is None else (after,))
            return await read_page(connection, walk, part, wanted, limit=limit)

    async def get_notification(self, notification_id: str, *, token: str | None) -> RowMapping:
        """One row. Raises `NotFound`."""
        async with self._database.read_for_caller() as connection:
            return await _find_notification(connection, notification_id, token)

    async def resend(self, notification_id: str, *, token: str | None, now: datetime) -> RowMapping:
        """Make one due now, whatever became of it. Raises `NotFound`, also if its endpoint is deleted."""
        async with self._database.transaction() as connection:
            await lock_dispatch(connection)
            stored = await _find_notification(connection, notification_id, token)
            status = SubscriptionStatus.ACTIVE
            if stored["subscription_id"] is not None:
                status = (await _find(connection, stored["subscription_id"], token)).status
            await _make_due(connection, _n.id == notification_id, status, now=now)
            return await _find_notification(connection, notification_id, token)

    async def resend_many(
        self,
        subscription_id: str,
        *,
        state: NotificationState,
        since: datetime | None,
        until: datetime | None,
        token: str | None,
        now: datetime,
    ) -> int:
        """Make the endpoint's oldest `MOST_RESENT` in this state and time due; returns how many. Raises `NotFound`."""
        async with self._database.transaction() as connection:
            await lock_dispatch(connection)
            stored = await _find(connection, subscription_id, token)
            conditions: list[ColumnElement[bool]] = [_n.subscription_id == stored.id, _n.state == state]
            # By id, which begins with the time: there is an index of the ids of each endpoint.
            conditions += [] if since is None else [_n.id >= uuid7_beginning(since), _n.created_at >= since]
            conditions += [] if until is None else [_n.created_at < until]
            chosen = select(_n.id).where(*conditions).order_by(_n.id).limit(MOST_RESENT)
            ids = (await connection.execute(chosen)).scalars().all()
            if ids:
                await _make_due(connection, self._is_among(ids), stored.status, now=now)
            return len(ids)

    async def publish_alarm(self, *, event_id: str, now: datetime, **alarm: Any) -> int:  # noqa: ANN401
        """Notify the endpoints that ask for alarms of one, described as `alarm_body` asks; returns how many there are.

        Again with one id changes nothing.
        """
        body = alarm_body(event_id, now, **alarm)
        async with self._database.read() as connection:
            asking = [to for to in await live_subscriptions(connection) if EventType.ALARM in to.event_types]
        if not asking:
            return 0
        async with self._database.transaction() as connection:
            await lock_dispatch(connection)
            known = {to.id: to for to in await live_subscriptions(connection)}
            new = [
                NewNotification.of(known[to.id], event_id=event_id, event_type=EventType.ALARM, body=body)
                for to in asking
                if to.id in known
            ]
            await self.insert(connection, new, now=now)
        return len(new)

    async def insert(self, connection: AsyncConnection, new: Iterable[NewNotification], *, now: datetime) -> list[str]:
        """Write notifications, due now, and return their ids; those that are written already are left as they are."""
        rows = [
            {
                **{name: getattr(it, name) for name in NewNotification.__dataclass_fields__},
                "id": str(uuid7(now)),
                "created_at": now,
                "next_attempt_at": now if it.state is NotificationState.PENDING else None,
                "attempts": 0,
                "attempt_log": "[]",
            }
            for it in new
        ]
        if not rows:
            return []
        statement = self._database.insert(notifications).on_conflict_do_nothing(index_elements=[_n.queue, _n.event_id])
        await connection.execute(statement, rows)
        if later := [row["id"] for row in rows if row["number"] > 1]:
            await connection.execute(_after_earlier(self._is_among(later)))
        return [row["id"] for row in rows]

    async def cursor(self) -> str | None:
        """How far the feed is dispatched; None: nobody asks for it."""
        async with self._database.read() as connection:
            cursor: str | None = (await connection.execute(_CURSOR)).scalar_one()
            return cursor

    async def look(self) -> Work:
        """Whether there is anything to do: all that is read while there is no endpoint."""
        async with self._database.read() as connection:
            return Work(*(value is not None for value in (await connection.execute(LOOK)).one()))

    async def clean_up(self, *, now: datetime) -> None:
        """Give up what was held for too long, and whatever tokens have that were revoked or have expired.

        Endpoints that were deleted are removed, so that who makes and deletes them without end fills no disk.
        """
        is_over = tokens.c.revoked_at.is_not(None) | (tokens.c.expires_at <= now)
        names = select(tokens.c.name).where(is_over)
        gone = select(_s.id).where(_LIVE, _s.token.in_(names))
        theirs = _n.queue.in_(select(literal(CALLBACKS) + tokens.c.name).where(is_over))
        ended = {"state": NotificationState.CANCELED, "ended_at": now, "next_attempt_at": None, "lease_until": None}
        old = update(notifications).where(OPEN, _n.state == NotificationState.HELD, _n.created_at < now - HOLD)
        async with self._database.transaction() as connection:
            await lock_dispatch(connection)
            ids = (await connection.execute(gone)).scalars().all()
            if ids:
                await _revoke(connection, ids, now=now)
            await connection.execute(delete(subscriptions).where(_s.revoked_at < now - _DELETED_KEPT))
            await connection.execute(delete(callbacks).where(callbacks.c.token.in_(names)))
            await connection.execute(update(notifications).where(_PENDING, theirs).values(ended))
            await connection.execute(old.values(state=NotificationState.DEAD, ended_at=now, error=HELD_TOO_LONG))

    async def pending(self) -> tuple[int, datetime | None]:
        """How many are pending (`MOST_COUNTED` at most), and since when the oldest is."""
        counted = select(func.count()).select_from(select(_n.id).where(_PENDING).limit(MOST_COUNTED).subquery())
        oldest = select(_n.created_at).where(OPEN, _PENDING).order_by(_n.created_at).limit(1)
        async with self._database.read() as connection:
            count = (await connection.execute(counted)).scalar_one()
            return count, (await connection.execute(oldest)).scalar_one_or_none() if count else None

    def _is_among(self, ids: Sequence[str]) -> ColumnElement[bool]:
        return is_among(_n.id, ids, is_sqlite=self._database.is_sqlite)


HELD_TOO_LONG: Final = "held_too_long"


async def live_subscriptions(connection: AsyncConnection) -> list[Subscription]:
    """All endpoints but the deleted ones."""
    rows = (await connection.execute(select(subscriptions).where(_LIVE).order_by(_s.id))).mappings()
    return [to_subscription(row) for row in rows]


async def set_status(
    connection: AsyncConnection, subscription_id: str, status: SubscriptionStatus, *, now: datetime
) -> dict[str, Any]:
    """Hold or release what is to be sent to an endpoint; returns the columns to write with its new status."""
    theirs = update(notifications).where(_n.queue == subscription_id)
    if status is SubscriptionStatus.ACTIVE:
        held = theirs.where(_n.state == NotificationState.HELD)
        released = {"state": NotificationState.PENDING, "next_attempt_at": now, "attempts": 0}
        given_up = {"state": NotificationState.DEAD, "ended_at": now, "error": HELD_TOO_LONG}
        await connection.execute(held.where(_n.created_at >= now - HOLD).values(released))
        await connection.execute(held.values(given_up))
        return {"disabled_at": None, "failure_count": 0, "failing_since": None}
    is_free = _n.lease_until.is_(None) | (_n.lease_until <= now)  # what is under way ends first
    held_from_now = {"state": NotificationState.HELD, "next_attempt_at": None, "lease_until": None}
    await connection.execute(theirs.where(_PENDING, is_free).values(held_from_now))
    return {"disabled_at": now if status is SubscriptionStatus.DISABLED else None}


async def _revoke(connection: AsyncConnection, ids: Sequence[str], *, now: datetime) -> None:
    ended = {"state": NotificationState.CANCELED, "ended_at": now, "next_attempt_at": None, "lease_until": None}
    is_open = _n.state.in_((NotificationState.PENDING, NotificationState.HELD))
    revoked = {"status": SubscriptionStatus.REVOKED, "revoked_at": now, "updated_at": now}
    for subscription_id in ids:
        await connection.execute(update(notifications).where(_n.queue == subscription_id, is_open).values(ended))
        await connection.execute(update(subscriptions).where(_s.id == subscription_id).values(revoked))
    if (await connection.execute(select(_s.id).where(_LIVE).limit(1))).first() is None:
        await set_cursor(connection, None)


async def _make_due(
    connection: AsyncConnection, chosen: ColumnElement[bool], status: SubscriptionStatus, *, now: datetime
) -> None:
    is_active = status is SubscriptionStatus.ACTIVE
    values = {
        "state": NotificationState.PENDING if is_active else NotificationState.HELD,
        "next_attempt_at": now if is_active else None,
        "attempts": 0,
        "ended_at": None,
    }
    # What a sender has just now is left to it.
    is_free = _n.lease_until.is_(None) | (_n.lease_until <= now)
    await connection.execute(update(notifications).where(chosen, is_free).values(values))


def _after_earlier(chosen: ColumnElement[bool]) -> Any:  # noqa: ANN401 - an update
    """Make these due no earlier than the events before them, of the same generation: senders would skip them."""
    earlier = notifications.alias("earlier")
    is_before = (
        (earlier.c.queue == _n.queue)
        & (earlier.c.generation_id == _n.generation_id)
        & (earlier.c.state == literal_column("'pending'"))
        & (earlier.c.number < _n.number)
    )
    latest = select(func.max(earlier.c.next_attempt_at)).where(is_before).correlate(notifications).scalar_subquery()
    has_earlier = exists(select(earlier.c.id).where(is_before).correlate(notifications))
    return update(notifications).where(chosen, _PENDING, has_earlier).values(next_attempt_at=latest)


async def _find(
    connection: AsyncConnection, subscription_id: str, token: str | None, *, is_locked: bool = False
) -> Subscription:
    statement = select(subscriptions).where(_s.id == subscription_id, _LIVE, *_of_token(_s.token, token))
    statement = statement.with_for_update() if is_locked else statement
    row = (await connection.execute(statement)).mappings().one_or_none()
    if row is None:
        raise NotFound("There is no webhook endpoint with this id.")
    return to_subscription(row)


async def _find_notification(connection: AsyncConnection, notification_id: str, token: str | None) -> RowMapping:
    statement = select(notifications).where(_n.id == notification_id, *_of_token(_n.token, token))
    row = (await connection.execute(statement)).mappings().one_or_none()
    if row is None:
        raise NotFound("There is no notification with this id.")
    return row


def _of_token(column: ColumnElement[str], token: str | None) -> tuple[ColumnElement[bool], ...]:
    return () if token is None else (column == token,)


def subscription_row(subscription: Subscription) -> dict[str, Any]:
    """The columns of an endpoint."""
    row = {name: getattr(subscription, name) for name in Subscription.__dataclass_fields__}
    return {**row, "event_types": orjson.dumps(subscription.event_types).decode()}


def to_subscription(row: RowMapping) -> Subscription:
    """The endpoint of a row."""
    members = {name: row[name] for name in Subscription.__dataclass_fields__}
    types = tuple(EventType(name) for name in orjson.loads(row["event_types"]))
    return Subscription(**{**members, "event_types": types, "status": SubscriptionStatus(row["status"])})
