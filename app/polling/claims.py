"""Claims due generations, each for one poller at a time and with a reserved slot, in one short transaction."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, Update, bindparam, select, update

from app.core.clock import Clock
from app.core.database import Database, UtcDateTime
from app.ledger.models import Tracking
from app.ledger.poll_state import PollLease
from app.ledger.tables import generations
from app.ratelimit.limiter import RateLimiter, Reservation

LEASE = timedelta(seconds=60)
"""Longer than a poll may take: 2 seconds until its slot, 10 for the response, 10 for the commit, and time to write."""

_g = generations.c
NEXT_DUE = select(_g.next_poll_at).where(_g.next_poll_at.is_not(None)).order_by(_g.next_poll_at).limit(1)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A generation to poll, and the reserved slot."""

    lease: PollLease
    reservation: Reservation


class Claims:
    """A claim moves `next_poll_at` to the end of the lease, so that the work of a killed poller becomes due again."""

    def __init__(self, database: Database, limiter: RateLimiter, clock: Clock, *, lease: timedelta = LEASE) -> None:
        self._database = database
        self._limiter = limiter
        self._clock = clock
        self._lease = lease

    async def next_due(self) -> datetime | None:
        """When the next poll is due; None if none is scheduled. Raises `DatabaseUnavailable`."""
        async with self._database.read() as connection:
            return (await connection.execute(NEXT_DUE)).scalar_one_or_none()

    async def claim(self, most: int) -> list[Claimed]:
        """Claim due generations, at most `most` and as many as the budget allows. Raises `DatabaseUnavailable`."""
        async with self._database.transaction() as connection:
            budget = await self._limiter.lock(connection)
            room = min(budget.capacity, most)
            if room == 0:
                return []
            parameters = {"now": budget.now, "until": budget.now + self._lease, "most": room}
            leases = [_lease_from(row) for row in (await connection.execute(CLAIM, parameters)).mappings()]
            reservations = await self._limiter.reserve(connection, budget, len(leases))
        return [Claimed(*claimed) for claimed in zip(leases, reservations, strict=True)]


def _claim() -> Update:
    # The CTE is evaluated once, because it locks: a subquery in the WHERE could be evaluated again and claim more.
    due = (
        select(_g.id)
        .where(_g.next_poll_at <= bindparam("now", type_=UtcDateTime))
        .order_by(_g.next_poll_at)
        .limit(bindparam("most"))
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    until = bindparam("until", type_=UtcDateTime)
    changes = {"lease_until": until, "next_poll_at": until, "revision": _g.revision + 1}
    change = update(generations).where(_g.id.in_(select(due.c.id))).values(changes)
    return change.returning(*(_g[name] for name in PollLease.__dataclass_fields__))


CLAIM = _claim()
"""`next_poll_at` is set only where a poll is scheduled, so that one indexed condition finds what is due."""


def _lease_from(row: RowMapping) -> PollLease:
    columns: dict[str, Any] = {**row, "tracking": Tracking(row["tracking"])}
    return PollLease(**columns)
