"""Claims due generations for one poller at a time, and writes what comes of the polls: the rows of `polls`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, Update, and_, bindparam, or_, select, update

from app.core.database import Database, UtcDateTime
from app.ledger.models import Tracking
from app.ledger.sql import any_of, ids_parameter
from app.ledger.tables import polls
from app.ratelimit.limiter import RateLimiter, Reservation

LEASE = timedelta(seconds=60)
"""Longer than a poll may take: 2 seconds until its slot, 10 for the response, 10 for the commit, and time to write."""

_AT_ONCE = 1000
_WRITTEN = ("next_poll_at", "state", "polls", "failures", "last_error", "not_found_count", "not_found_since")
_p = polls.c
_ids = select(_p.generation_id)
NEXT_DUE = select(_p.next_poll_at).where(_p.next_poll_at.is_not(None)).order_by(_p.next_poll_at).limit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PollLease:
    """A generation that a poller has leased: columns of `polls` at the time of the claim."""

    generation_id: str
    lease_until: datetime
    """Identifies the lease: results of an earlier lease are not written."""
    model: str | None
    first_seen_at: datetime
    state: Tracking
    next_poll_at: datetime | None
    polls: int
    failures: int
    last_error: str | None
    not_found_count: int
    not_found_since: datetime | None


@dataclass(frozen=True, slots=True)
class PollResult:
    """What to write after a poll without a report; writing it ends the lease."""

    lease: PollLease
    changed: PollLease


@dataclass(frozen=True, slots=True, kw_only=True)
class PollTimeLimits:
    """The latest possible `next_poll_at`, by the result of the last poll.

    A later one was written before the clock was set back.
    """

    watched: datetime
    failing: datetime
    """For a watched generation whose last poll failed."""
    stalled: datetime


@dataclass(frozen=True, slots=True)
class Claimed:
    """A generation to poll, and the reserved slot."""

    lease: PollLease
    reservation: Reservation


class Claims:
    """Claims polls, and writes `polls` where there is no report to record; `Recorder` inserts and deletes its rows.

    A claim moves `next_poll_at` to the end of the lease, so that the work of a killed poller becomes due again.
    """

    def __init__(self, database: Database, limiter: RateLimiter) -> None:
        self._database = database
        self._limiter = limiter
        is_polled = any_of(_p.generation_id, "ids", is_sqlite=database.is_sqlite) & _p.next_poll_at.is_not(None)
        self._lock = select(_p.generation_id, _p.lease_until).where(is_polled).order_by(_p.generation_id)

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
            parameters = {"now": budget.now, "until": budget.now + LEASE, "most": room}
            rows = (await connection.execute(CLAIM, parameters)).mappings()
            leases = [PollLease(**{**row, "state": Tracking(row["state"])}) for row in rows]
            reservations = await self._limiter.reserve(connection, budget, len(leases))
        return [Claimed(*claimed) for claimed in zip(leases, reservations, strict=True)]

    async def record_poll_failures(self, results: Sequence[PollResult]) -> list[PollResult]:
        """Write `results` in one transaction, and return those that were written.

        A generation that was settled meanwhile, or is leased to another poller, is not changed. Locks rows in the
        order of ids, like `Recorder.record`. Raises `DatabaseUnavailable`.
        """
        ids = sorted({result.lease.generation_id for result in results})
        if not ids:
            return []
        parameter = ids_parameter(ids, is_sqlite=self._database.is_sqlite)
        async with self._database.transaction() as connection:
            leased = await connection.execute(self._lock.with_for_update(), {"ids": parameter})
            leases = {row.generation_id: row.lease_until for row in leased}
            current = [
                result for result in results if leases.get(result.lease.generation_id) == result.lease.lease_until
            ]
            if current:
                new = [
                    {name: getattr(it.changed, name) for name in _WRITTEN} | {"id": it.lease.generation_id}
                    for it in current
                ]
                await connection.execute(_WRITE, new)
        return current

    async def advance(self, *, to: datetime, later_than: datetime) -> int:
        """Move polls that are scheduled after `later_than` to the time `to`, and return how many (1000 at most).

        For generations whose callbacks can't be expected any more. Leased generations, and those that are polled less
        often after failures, keep their time. Where there are none, nothing is written. Raises `DatabaseUnavailable`.
        """
        async with self._database.read() as connection:
            later = await connection.execute(_LATER.limit(1), {"later_than": later_than})
            if later.first() is None:
                return 0
        parameters = {"to": to, "later_than": later_than, "most": _AT_ONCE}
        async with self._database.transaction() as connection:
            return (await connection.execute(ADVANCE, parameters)).rowcount

    async def reset_impossible(self, bounds: PollTimeLimits, *, to: datetime) -> int:
        """Move polls that are scheduled later than `bounds` to the time `to`, and return how many (1000 at most).

        Such a time was written before the clock was set back. Raises `DatabaseUnavailable`.
        """
        parameters = {"to": to, "most": _AT_ONCE, **asdict(bounds)}
        async with self._database.transaction() as connection:
            return (await connection.execute(_RESET_IMPOSSIBLE, parameters)).rowcount


def _update(chosen: Select[Any]) -> Update:
    # Skips locked rows, so that it can't take part in a deadlock; they are found by a later run. The CTE is evaluated
    # once, because it locks: a subquery in the WHERE could be evaluated again and claim more.
    locked = chosen.limit(bindparam("most")).with_for_update(skip_locked=True).cte("chosen")
    return update(polls).where(_p.generation_id.in_(select(locked.c.generation_id)))


_TO = bindparam("to", type_=UtcDateTime)
_UNTIL = bindparam("until", type_=UtcDateTime)
_IS_WATCHED = _p.state == Tracking.WATCHING
_IS_WELL = and_(_IS_WATCHED, _p.failures == 0, _p.not_found_count == 0)
_BEYOND = {name: _p.next_poll_at > bindparam(name, type_=UtcDateTime) for name in ("watched", "failing", "stalled")}
_IS_LATER = (_p.next_poll_at > bindparam("later_than", type_=UtcDateTime), _p.lease_until.is_(None), _IS_WELL)
_LATER = _ids.where(*_IS_LATER)

ADVANCE = _update(_LATER).values(next_poll_at=_TO)

_RESET_IMPOSSIBLE = _update(
    _ids.where(_BEYOND["watched"], or_(_IS_WELL, and_(_IS_WATCHED, _BEYOND["failing"]), _BEYOND["stalled"]))
).values(next_poll_at=_TO, lease_until=None)

_WRITE = update(polls).where(_p.generation_id == bindparam("id")).values(lease_until=None)

CLAIM = (
    _update(_ids.where(_p.next_poll_at <= bindparam("now", type_=UtcDateTime)).order_by(_p.next_poll_at))
    .values(lease_until=_UNTIL, next_poll_at=_UNTIL)
    .returning(*(_p[name] for name in PollLease.__dataclass_fields__))
)
"""`next_poll_at` is set only where a poll is scheduled, so that one indexed condition finds what is due."""
