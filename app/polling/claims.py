"""Claims due generations for one poller at a time, and writes what comes of the polls: the rows of `polls`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, Update, and_, bindparam, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Database, UtcDateTime
from app.core.models import hot_dataclass
from app.core.pagination import IN_ORDER
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


@hot_dataclass()
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


def _to_lease(
    generation_id: str,
    lease_until: datetime,
    model: str | None,
    first_seen_at: datetime,
    state: str,
    *others: Any,  # noqa: ANN401
) -> PollLease:
    return PollLease(generation_id, lease_until, model, first_seen_at, Tracking(state), *others)


@dataclass(frozen=True, slots=True)
class PollResult:
    """The state to write after a poll without a report; writing it ends the lease."""

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


class DuePolls:
    """Chooses what to poll next: the tokens take turns, so that none can fill the budget with what it tracks."""

    def __init__(self, *, is_sqlite: bool) -> None:
        self._is_sqlite = is_sqlite
        self.choose = CHOOSE_ON_SQLITE if is_sqlite else CHOOSE
        still_due = any_of(_p.generation_id, "ids", is_sqlite=is_sqlite) & (_p.next_poll_at <= _NOW)
        lease = _update(_ids.where(still_due)).values(lease_until=_UNTIL, next_poll_at=_UNTIL)
        self._lease = lease.returning(*(_p[name] for name in PollLease.__dataclass_fields__))

    async def claim(
        self, connection: AsyncConnection, *, now: datetime, until: datetime, most: int, after: str
    ) -> tuple[list[PollLease], str]:
        """Lease at most `most` polls until `until`, in the order to poll in; and the token that had the last turn.

        The turns begin with the token after `after`.
        """
        if not self._is_sqlite:
            await connection.execute(IN_ORDER)
        due = {"now": now, "most": most}
        chosen = (await connection.execute(self.choose, {**due, "after": after})).all()
        places = {generation_id: place for place, (generation_id, _) in enumerate(chosen)}
        ids = ids_parameter(list(places), is_sqlite=self._is_sqlite)
        leased = (await connection.execute(self._lease, {**due, "until": until, "ids": ids})).all()
        leases = [_to_lease(*row) for row in leased]
        leases.sort(key=lambda lease: places[lease.generation_id])
        return leases, chosen[-1].token if chosen else after


class Claims:
    """Claims polls, and writes `polls` where there is no report to record; `Recorder` inserts and deletes its rows.

    A claim moves `next_poll_at` to the end of the lease, so that the work of a killed poller becomes due again.
    """

    def __init__(self, database: Database, limiter: RateLimiter) -> None:
        self._database = database
        self._limiter = limiter
        self._due = DuePolls(is_sqlite=database.is_sqlite)
        self._served = ""
        """The token whose poll was claimed last: the next claim begins with the token after it."""
        is_polled = any_of(_p.generation_id, "ids", is_sqlite=database.is_sqlite) & _p.next_poll_at.is_not(None)
        self._lock = select(_p.generation_id, _p.lease_until).where(is_polled).order_by(_p.generation_id)

    async def next_due(self) -> datetime | None:
        """When the next poll is due; None if none is scheduled. Raises `DatabaseUnavailable`."""
        async with self._database.read() as connection:
            return (await connection.execute(NEXT_DUE)).scalar_one_or_none()

    async def claim(self, most: int) -> list[Claimed]:
        """Claim due generations, at most `most` and as many as the budget allows. Raises `DatabaseUnavailable`.

        The tokens that have any due take turns; of one token, those that it submitted come before those that it tracks.
        """
        async with self._database.transaction() as connection:
            budget = await self._limiter.lock(connection)
            room = min(budget.capacity, most)
            if room == 0:
                return []
            leases, self._served = await self._due.claim(
                connection, now=budget.now, until=budget.now + LEASE, most=room, after=self._served
            )
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


_NOW = bindparam("now", type_=UtcDateTime)
_AFTER = bindparam("after", type_=_p.token.type)
_TO = bindparam("to", type_=UtcDateTime)
_UNTIL = bindparam("until", type_=UtcDateTime)
_IS_WATCHED = _p.state == Tracking.WATCHING
_IS_WELL = and_(_IS_WATCHED, _p.failures == 0, _p.not_found_count == 0)
_BEYOND = {name: _p.next_poll_at > bindparam(name, type_=UtcDateTime) for name in ("watched", "failing", "stalled")}
_IS_LATER = (_p.next_poll_at > bindparam("later_than", type_=UtcDateTime), _p.lease_until.is_(None), _IS_WELL)
# In this order PostgreSQL reads the index of next polls, where usually there is none. A plan made for any parameters
# expects a third of all rows, and without an order may look for the first of them from the beginning of the table.
_LATER = _ids.where(*_IS_LATER).order_by(_p.next_poll_at.desc())

ADVANCE = _update(_LATER).values(next_poll_at=_TO)

_RESET_IMPOSSIBLE = _update(
    _ids.where(_BEYOND["watched"], or_(_IS_WELL, and_(_IS_WATCHED, _BEYOND["failing"]), _BEYOND["stalled"]))
).values(next_poll_at=_TO, lease_until=None)

_WRITE = update(polls).where(_p.generation_id == bindparam("id")).values(lease_until=None)

_IN_TURN = "SELECT generation_id, token FROM turns ORDER BY turn, token <= :after, token LIMIT :most"

# Each step of `owners` finds the next token in the index, so the time does not depend on how many polls a token has.
_OWNERS = """
    WITH RECURSIVE owners AS (
        SELECT * FROM (SELECT token FROM polls WHERE next_poll_at IS NOT NULL ORDER BY token LIMIT 1) AS first
        UNION ALL
        SELECT (
            SELECT p.token FROM polls AS p
            WHERE p.next_poll_at IS NOT NULL AND p.token > owners.token ORDER BY p.token LIMIT 1
        ) FROM owners WHERE owners.token IS NOT NULL
    ), kinds (source, place) AS (VALUES ('submit', 0), ('webhook', 1), ('poll', 1), ('operator', 1))
"""
_TURN = "row_number() OVER (PARTITION BY owners.token ORDER BY kinds.place, due.next_poll_at) AS turn"

# The token is compared with an array, so that only the index by token has the order, which is never made by sorting:
# with `token = owners.token` PostgreSQL may read all that is due, again for each token, from the index by time. A
# comparison of rows would not end where a token's polls of a source do, but read on through those of its others.
CHOOSE = text(
    f"""
    {_OWNERS}, turns AS (
        SELECT owners.token, due.generation_id, {_TURN}
        FROM owners CROSS JOIN kinds CROSS JOIN LATERAL (
            SELECT p.generation_id, p.next_poll_at FROM polls AS p
            WHERE p.next_poll_at IS NOT NULL
                AND p.token = ANY(ARRAY[owners.token]) AND p.source = kinds.source AND p.next_poll_at <= :now
            ORDER BY p.token, p.source, p.next_poll_at LIMIT :most
        ) AS due
    )
    {_IN_TURN}
    """  # noqa: S608 - constant text
).bindparams(_NOW, _AFTER)
"""Ids of due generations with their tokens, in the order in which they are to be polled."""

CHOOSE_ON_SQLITE = text(
    f"""
    {_OWNERS}, turns AS (
        SELECT owners.token, due.generation_id, {_TURN}
        FROM owners CROSS JOIN kinds CROSS JOIN polls AS due WHERE due.rowid IN (
            SELECT p.rowid FROM polls AS p
            WHERE p.token = owners.token AND p.source = kinds.source AND p.next_poll_at <= :now
            ORDER BY p.next_poll_at LIMIT :most
        )
    )
    {_IN_TURN}
    """  # noqa: S608 - constant text
).bindparams(_NOW, _AFTER)
"""The same without LATERAL, which SQLite lacks."""
