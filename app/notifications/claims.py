"""Leases due notifications to one sender at a time, and writes what came of the attempts."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from sqlalchemy import ColumnElement, RowMapping, bindparam, exists, func, literal_column, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Database, Id, UtcDateTime
from app.ledger.sql import is_among
from app.notifications.models import (
    CALLBACKS,
    MOST_AT_ONCE,
    MOST_WHILE_FAILING,
    RIVYAS_TYPES,
    TEST_TYPE,
    Claimed,
    Failing,
    NotificationState,
    Result,
    Subscription,
    SubscriptionStatus,
    failing_stage,
    logged,
    next_attempt,
)
from app.notifications.repository import lock_dispatch, set_status, to_subscription
from app.notifications.tables import notifications, subscriptions

LEASE: Final = timedelta(seconds=60)
"""Longer than an attempt may take: 15 seconds for the answer, and time to write what came of it."""

MaySend = Callable[[str], bool]
"""Whether the token of this name is valid."""

_n, _s = notifications.c, subscriptions.c
_PENDING: Final = _n.state == literal_column("'pending'")
_earlier: Final = notifications.alias("earlier")
_IS_FIRST: Final = ~exists(
    select(_earlier.c.id)
    .where(
        _earlier.c.queue == _n.queue,
        _earlier.c.generation_id == _n.generation_id,
        _earlier.c.state.in_((literal_column("'pending'"), literal_column("'held'"))),
        _earlier.c.number < _n.number,
    )
    .correlate(notifications)
)
_NOW: Final = bindparam("now", type_=UtcDateTime)

# Each step finds the next queue in the index, so the time does not depend on how much is waiting.
DUE: Final = text(
    """
    WITH RECURSIVE queues AS (
        SELECT queue FROM (SELECT queue FROM notifications WHERE state = 'pending' ORDER BY queue LIMIT 1) AS first
        UNION ALL
        SELECT (
            SELECT n.queue FROM notifications AS n
            WHERE n.state = 'pending' AND n.queue > queues.queue ORDER BY n.queue LIMIT 1
        ) FROM queues WHERE queues.queue IS NOT NULL
    ), first_due AS (
        SELECT queue, (
            SELECT n.next_attempt_at FROM notifications AS n
            WHERE n.state = 'pending' AND n.queue = queues.queue ORDER BY n.next_attempt_at LIMIT 1
        ) AS due_at FROM queues WHERE queue IS NOT NULL
    )
    SELECT queue, due_at FROM first_due ORDER BY queue
    """
).columns(queue=Id, due_at=UtcDateTime)
"""The queues with something pending, and when the first of it is due."""

_IN_QUEUE: Final = (
    select(notifications)
    .where(_n.queue == bindparam("of", type_=Id), _PENDING, _n.next_attempt_at <= _NOW, _IS_FIRST)
    .order_by(_n.next_attempt_at, _n.id)
    .limit(bindparam("most"))
)
_UNDER_WAY: Final = select(_n.queue, func.count().label("leased")).where(_n.lease_until > _NOW).group_by(_n.queue)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What was written after an attempt."""

    claimed: Claimed
    result: Result
    state: NotificationState
    failing: Failing | None = None
    """What its endpoint's operator has to know."""


class Claims:
    """Every method raises `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._served = ""
        """The queue that was served last: the next turn begins with the one after it."""

    async def next_due(self) -> datetime | None:
        """When the next attempt is due; None if none is pending."""
        async with self._database.read() as connection:
            return min((row.due_at for row in (await connection.execute(DUE)).all()), default=None)

    async def turn(
        self,
        results: Sequence[tuple[Claimed, Result]],
        most: int,
        *,
        most_failing: int,
        now: datetime,
        may_send: MaySend,
    ) -> tuple[list[Ended], list[Claimed]]:
        """Write what came of attempts, and lease at most `most` notifications that are due, in one transaction.

        What is written is returned: where a lease has been lost meanwhile, or the endpoint was deleted, nothing is. The
        queues take turns. Of one queue at most `MOST_AT_ONCE` are leased at once, in all processes together, and of
        one generation only the first that is not over. At most `most_failing` are for endpoints that fail.
        """
        async with self._database.transaction() as connection:
            await lock_dispatch(connection)
            ended = await self._record(connection, results) if results else []
            if most <= 0:
                return ended, []
            return ended, await self._claim(connection, most, most_failing=most_failing, now=now, may_send=may_send)

    async def _claim(
        self, connection: AsyncConnection, most: int, *, most_failing: int, now: datetime, may_send: MaySend
    ) -> list[Claimed]:
        due = [row.queue for row in (await connection.execute(DUE)).all() if row.due_at <= now]
        if not due:
            return []
        under_way = {row.queue: row.leased for row in (await connection.execute(_UNDER_WAY, {"now": now})).all()}
        known = await self._subscriptions(connection, due)
        rooms = {queue: _limit(queue, known, may_send) - under_way.get(queue, 0) for queue in due}
        failing = {queue: rooms.pop(queue) for queue in due if queue in known and known[queue].failure_count}
        counts = shares(failing, min(most, most_failing), after=self._served)
        counts |= shares(rooms, most - sum(counts.values()), after=self._served)
        claimed: list[Claimed] = []
        for queue, count in counts.items():
            parameters = {"of": queue, "most": count, "now": now}
            rows = (await connection.execute(_IN_QUEUE, parameters)).mappings().all()
            claimed += [_to_claimed(row, known.get(queue), until=now + LEASE) for row in rows]
            self._served = queue
        if claimed:
            lease = update(notifications).where(self._is_among(_n.id, [it.id for it in claimed]))
            await connection.execute(lease.values(lease_until=now + LEASE, next_attempt_at=now + LEASE))
        return claimed

    async def claim_one(self, notification_id: str, *, now: datetime) -> Claimed | None:
        """Lease this one now, whatever the limits; None if it is not pending."""
        async with self._database.transaction() as connection:
            await lock_dispatch(connection)
            statement = select(notifications).where(_n.id == notification_id, _PENDING)
            row = (await connection.execute(statement)).mappings().one_or_none()
            if row is None:
                return None
            known = await self._subscriptions(connection, [row["queue"]])
            lease = update(notifications).where(_n.id == notification_id)
            await connection.execute(lease.values(lease_until=now + LEASE, next_attempt_at=now + LEASE))
            return _to_claimed(row, known.get(row["queue"]), until=now + LEASE)

    async def give_back(self, claimed: Sequence[Claimed], *, now: datetime) -> None:
        """Make due again what was not sent."""
        async with self._database.transaction() as connection:
            await lock_dispatch(connection)
            for it in await self._current(connection, claimed):
                freed = update(notifications).where(_n.id == it.id)
                await connection.execute(freed.values(lease_until=None, next_attempt_at=now))

    async def record(self, results: Sequence[tuple[Claimed, Result]]) -> list[Ended]:
        """Write what came of attempts, in one transaction; returns what was written."""
        async with self._database.transaction() as connection:
            await lock_dispatch(connection)
            return await self._record(connection, results)

    async def _record(self, connection: AsyncConnection, results: Sequence[tuple[Claimed, Result]]) -> list[Ended]:
        by_id = {claimed.id: result for claimed, result in results}
        current = await self._current(connection, [claimed for claimed, _ in results])
        known = await self._subscriptions(connection, [it.queue for it in current])
        ended: list[Ended] = []
        health: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        for it in sorted(current, key=lambda it: by_id[it.id].at):
            result, subscription = by_id[it.id], known.get(it.queue)
            failing = None
            if subscription is not None and it.event_type != TEST_TYPE:
                changes, failing = await _health(connection, subscription, result)
                health[it.queue] |= changes
                subscription = known[it.queue] = replace(subscription, **changes)
            state = await _write(connection, it, result, subscription)
            ended.append(Ended(claimed=it, result=result, state=state, failing=failing))
        for subscription_id, changes in health.items():
            await connection.execute(update(subscriptions).where(_s.id == subscription_id).values(changes))
        return ended

    async def _current(self, connection: AsyncConnection, claimed: Sequence[Claimed]) -> list[Claimed]:
        statement = select(_n.id, _n.lease_until).where(self._is_among(_n.id, [it.id for it in claimed]), _PENDING)
        rows = (await connection.execute(statement)).all()
        leases = {row.id: row.lease_until for row in rows}
        return [it for it in claimed if leases.get(it.id) == it.lease_until]

    async def _subscriptions(self, connection: AsyncConnection, ids: Sequence[str]) -> dict[str, Subscription]:
        rows = (await connection.execute(select(subscriptions).where(self._is_among(_s.id, ids)))).mappings()
        return {row["id"]: to_subscription(row) for row in rows}

    def _is_among(self, column: ColumnElement[str], ids: Sequence[str]) -> ColumnElement[bool]:
        return is_among(column, ids, is_sqlite=self._database.is_sqlite)


def shares(rooms: dict[str, int], most: int, *, after: str) -> dict[str, int]:
    """How many of `most` each queue gets: they take turns, beginning with the one after `after`."""
    names = sorted(rooms)
    names = [name for name in names if name > after] + [name for name in names if name <= after]
    counts: Counter[str] = Counter()
    while most > 0 and (open_ones := [name for name in names if counts[name] < rooms[name]]):
        for name in open_ones[:most]:
            counts[name] += 1
        most -= len(open_ones)
    return {name: counts[name] for name in names if counts[name]}


def _limit(queue: str, known: dict[str, Subscription], may_send: MaySend) -> int:
    subscription = known.get(queue)
    if subscription is None:  # callbacks of single jobs
        return MOST_AT_ONCE if may_send(queue.removeprefix(CALLBACKS)) else 0
    if subscription.status is not SubscriptionStatus.ACTIVE or not may_send(subscription.token):
        return 0
    return MOST_WHILE_FAILING if subscription.failure_count else MOST_AT_ONCE


async def _health(
    connection: AsyncConnection, subscription: Subscription, result: Result
) -> tuple[dict[str, Any], Failing | None]:
    """How the endpoint does, as columns to write, and what its operator has to know; holds its events if it ends."""
    if result.is_success:
        last, success = subscription.last_failure_at, subscription.last_success_at
        failed_before = last is not None and (success is None or last > success)
        changes = {"last_success_at": result.at, "failure_count": 0, "failing_since": None}
        return changes, Failing.ENDED if failed_before else None
    is_active = subscription.status is SubscriptionStatus.ACTIVE
    stage = failing_stage(subscription, result.at) if is_active else None
    changes = {
        "last_failure_at": result.at,
        "failure_count": subscription.failure_count + 1,
        "failing_since": subscription.failing_since or result.at,
    }
    if is_active and (result.is_gone or stage is Failing.DISABLED):
        stage = Failing.DISABLED
        changes |= await set_status(connection, subscription.id, SubscriptionStatus.DISABLED, now=result.at)
        changes |= {"status": SubscriptionStatus.DISABLED, "updated_at": result.at}
    return changes, stage


async def _write(
    connection: AsyncConnection, claimed: Claimed, result: Result, subscription: Subscription | None
) -> NotificationState:
    """Write one attempt, and when the later events of its generation are due; returns its new state."""
    attempts = claimed.attempts + 1
    spread = random.random()  # noqa: S311 - no secret
    following = None if claimed.event_type == TEST_TYPE else next_attempt(attempts, result, spread=spread)
    is_active = subscription is None or subscription.status is SubscriptionStatus.ACTIVE
    if result.is_success:
        state, following = NotificationState.DELIVERED, None
    elif following is None:
        state = NotificationState.DEAD
    else:
        state = NotificationState.PENDING if is_active else NotificationState.HELD
    values = {
        "state": state,
        "next_attempt_at": following if state is NotificationState.PENDING else None,
        "ended_at": result.at if following is None else None,
        "lease_until": None,
        "attempts": attempts,
        "response_status": result.status,
        "error": result.reason,
        "attempt_log": orjson.dumps(logged(claimed.attempt_log, result)).decode(),
    }
    await connection.execute(update(notifications).where(_n.id == claimed.id).values(values))
    if claimed.generation_id is not None and claimed.event_type not in RIVYAS_TYPES:  # nothing follows those
        later = update(notifications).where(
            _n.queue == claimed.queue, _n.generation_id == claimed.generation_id, _PENDING, _n.number > claimed.number
        )
        if following is None:
            await connection.execute(later.where(_n.attempts == 0).values(next_attempt_at=result.at))
        else:
            await connection.execute(later.where(_n.next_attempt_at < following).values(next_attempt_at=following))
    return state


def _to_claimed(row: RowMapping, subscription: Subscription | None, *, until: datetime) -> Claimed:
    copied = (
        *("id", "queue", "callback_url", "token", "event_id", "event_type", "generation_id", "number", "attempts"),
        "body",
    )
    members = {name: row[name] for name in copied}
    log = orjson.loads(row["attempt_log"])
    return Claimed(**members, attempt_log=log, lease_until=until, subscription=subscription)
