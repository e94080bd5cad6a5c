"""Claims due generations for one poller at a time, and writes what comes of the polls: the rows of `polls`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
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
_BEGINNING = datetime.min.replace(tzinfo=UTC)
_NEVER_SKIPPED = timedelta(seconds=10)
"""What is due for less than this is never skipped: a commit may take some time, and replicas' clocks differ."""
_SKIPPED_FOR = timedelta(seconds=10)
"""How late a poll can be found that was written with a time which had been passed already."""
_p = polls.c
_ids = select(_p.generation_id)
_SINCE = bindparam("since", type_=UtcDateTime)
NEXT_DUE = select(_p.next_poll_at).where(_p.next_poll_at >= _SINCE).order_by(_p.next_poll_at).limit(1)


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
    """Chooses what to poll next: the tokens take turns, so that none can fill the budget with what it tracks.

    While somebody keeps a snapshot open, the index entries of all that is settled stay, and each claim would pass them.
    So it begins where `next_due` found the first poll. That looks from there, too, and every ten seconds from the
    beginning.
    """

    def __init__(self, *, is_sqlite: bool) -> None:
        self._is_sqlite = is_sqlite
        self.since = _BEGINNING
        """No poll is due before this time, as far as is known."""
        self._read_all_at: datetime | None = None
        """When `next_due` last began at the beginning."""
        self._tokens = 1
        """How many tokens the last claim served: the next one first reads of each no more than its share would be."""

    async def next_due(self, connection: AsyncConnection, *, now: datetime) -> datetime | None:
        """When the next poll is due; None if none is scheduled."""
        if self._read_all_at is None or not self._read_all_at <= now < self._read_all_at + _SKIPPED_FOR:
            self.since, self._read_all_at = _BEGINNING, now
        due_at = (await connection.execute(NEXT_DUE, {"since": self.since})).scalar_one_or_none()
        self.since = min(due_at or now, now - _NEVER_SKIPPED)
        return due_at

    async def claim(
        self, connection: AsyncConnection, *, now: datetime, until: datetime, most: int, after: str
    ) -> tuple[list[PollLease], str]:
        """Lease at most `most` polls until `until`, in the order to poll in; and the token that had the last turn.

        The turns begin with the token after `after`.
        """
        if not self._is_sqlite:
            await connection.execute(PLANNED_ONCE)
        parameters = {"since": self.since, "now": now, "until": until, "after": after}
        each = ceil(most / self._tokens)
        leased = await self._lease(connection, {**parameters, "most": most, "each": each})
        counts = Counter(token for token, _ in leased)
        missing = most - len(leased)
        if missing > 0 and max(counts.values(), default=0) == each:  # one may have more than its share, others had less
            leased += await self._lease(connection, {**parameters, "most": missing, "each": missing})
        self._tokens = max(len(counts), 1)
        return [lease for _, lease in leased], leased[-1][0] if leased else after

    async def _lease(self, connection: AsyncConnection, parameters: dict[str, Any]) -> list[tuple[str, PollLease]]:
        """The leases in the order to poll in, each with its token."""
        if not self._is_sqlite:
            after = parameters["after"]
            leased = await connection.execute(CLAIM, parameters)
            in_turn = sorted(leased, key=lambda row: (row.turn, row.token <= after, row.token))
            return [(token, _to_lease(*lease)) for _, token, *lease in in_turn]
        tokens = {key: token for key, token, _ in await connection.execute(CHOOSE_ON_SQLITE, parameters)}
        ids = ids_parameter(list(tokens), is_sqlite=True)
        rows = await connection.execute(_LEASE_ON_SQLITE, {"until": parameters["until"], "ids": ids})
        leases = {lease.generation_id: lease for lease in (_to_lease(*row) for row in rows)}
        return [(token, leases[key]) for key, token in tokens.items()]


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

    async def next_due(self, now: datetime) -> datetime | None:
        """When the next poll is due; None if none is scheduled. Raises `DatabaseUnavailable`."""
        async with self._database.read() as connection:
            return await self._due.next_due(connection, now=now)

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

_LEASED = tuple(_p[name] for name in PollLease.__dataclass_fields__)

# The settings of `IN_ORDER`, and one plan for all claims of a connection: planning takes as long as choosing. With the
# settings the plan is the same however few rows there are, so one that was made while there were none will do.
PLANNED_ONCE = text(f"{IN_ORDER.text}, set_config('plan_cache_mode', 'force_generic_plan', true)")

# Each step of `owners` finds the next token in the index, so the time does not depend on how many polls a token has.
_OWNERS = """
    WITH RECURSIVE owners AS (
        SELECT * FROM (SELECT token FROM polls WHERE next_poll_at >= :since ORDER BY token LIMIT 1) AS first
        UNION ALL
        SELECT (
            SELECT p.token FROM polls AS p
            WHERE p.next_poll_at >= :since AND p.token > owners.token ORDER BY p.token LIMIT 1
        ) FROM owners WHERE owners.token IS NOT NULL
    ), kinds (source, place) AS (VALUES ('submit', 0), ('webhook', 1), ('poll', 1), ('operator', 1))
"""
_TURN = "row_number() OVER (PARTITION BY owners.token ORDER BY kinds.place, due.next_poll_at) AS turn"
# Of a token's turns only the first `each` are right: of each source no more were read.
_IN_TURN = """
    SELECT key, token, turn FROM turns WHERE turn <= :each ORDER BY turn, token <= :after, token LIMIT :most
"""

# The token is compared with an array, so that only the index by token has the order, which is never made by sorting:
# with `token = owners.token` PostgreSQL may read all that is due, again for each token, from the index by time. A
# comparison of rows would not end where a token's polls of a source do, but read on through those of its others.
# Rows are read again by their place (`ctid`) to lock and to change them: `IS TRUE` keeps the index by time out of that.
# Those that another transaction has locked or changed are skipped, so that a claim can't take part in a deadlock; a
# later one finds them.
CLAIM = text(
    f"""
    {_OWNERS}, turns AS (
        SELECT owners.token, due.key, {_TURN}
        FROM owners CROSS JOIN kinds CROSS JOIN LATERAL (
            SELECT p.ctid AS key, p.next_poll_at FROM polls AS p
            WHERE p.token = ANY(ARRAY[owners.token]) AND p.source = kinds.source
                AND p.next_poll_at BETWEEN :since AND :now
            ORDER BY p.token, p.source, p.next_poll_at LIMIT :each
        ) AS due
    ), chosen AS ({_IN_TURN}), locked AS (
        SELECT p.ctid, chosen.token, chosen.turn FROM chosen JOIN polls AS p ON p.ctid = chosen.key
        WHERE (p.next_poll_at <= :now) IS TRUE FOR UPDATE OF p SKIP LOCKED
    )
    UPDATE polls SET lease_until = :until, next_poll_at = :until FROM locked WHERE polls.ctid = locked.ctid
    RETURNING locked.turn, locked.token, {", ".join(f"polls.{column.name}" for column in _LEASED)}
    """  # noqa: S608 - constant text
).bindparams(_SINCE, _NOW, _UNTIL, _AFTER)
"""Leases what is due; returns the turn of each, its token, and what `PollLease` has."""

# SQLite has no LATERAL, and an UPDATE returns nothing from other tables.
CHOOSE_ON_SQLITE = text(
    f"""
    {_OWNERS}, turns AS (
        SELECT owners.token, due.generation_id AS key, {_TURN}
        FROM owners CROSS JOIN kinds CROSS JOIN polls AS due WHERE due.rowid IN (
            SELECT p.rowid FROM polls AS p
            WHERE p.token = owners.token AND p.source = kinds.source AND p.next_poll_at BETWEEN :since AND :now
            ORDER BY p.next_poll_at LIMIT :each
        )
    )
    {_IN_TURN}
    """  # noqa: S608 - constant text
).bindparams(_SINCE, _NOW, _AFTER)
_LEASE_ON_SQLITE = (
    update(polls)
    .where(any_of(_p.generation_id, "ids", is_sqlite=True))
    .values(lease_until=_UNTIL, next_poll_at=_UNTIL)
    .returning(*_LEASED)
)
