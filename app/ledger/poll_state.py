"""Writes the poll state of generations where there is no report to record: after a failed poll or a returned lease."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, Select, Update, and_, bindparam, func, or_, select, update

from app.core.database import Database, UtcDateTime
from app.ledger.models import PollTimeLimits, Tracking
from app.ledger.sql import any_of, ids_parameter
from app.ledger.tables import generations

_AT_ONCE = 1000
_WRITTEN = (
    "next_poll_at",
    "tracking",
    "polls",
    "poll_failures",
    "last_poll_error",
    "not_found_count",
    "not_found_since",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PollLease:
    """A generation that a poller has leased: columns of `generations` at the time of the claim."""

    id: str
    lease_until: datetime
    """Identifies the lease: results of an earlier lease are not written."""
    model: str | None
    first_seen_at: datetime
    tracking: Tracking
    polls: int
    poll_failures: int
    last_poll_error: str | None
    not_found_count: int
    not_found_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PollResult:
    """The new poll state of a generation after a poll without a report; writing it ends the lease."""

    lease: PollLease
    next_poll_at: datetime | None
    tracking: Tracking
    polls: int
    poll_failures: int
    last_poll_error: str | None
    not_found_count: int
    not_found_since: datetime | None


class PollStateRepository:
    """The polling columns of `generations`, apart from what `Recorder.record` writes there."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = _lock(is_sqlite=database.is_sqlite)
        self._write = _write_each() if database.is_sqlite else _write_all()
        self._find_later = _later()
        self._advance = _advance()
        self._reset_impossible = _reset_impossible()

    async def record_poll_failures(self, results: Sequence[PollResult]) -> list[PollResult]:
        """Write `results` in one transaction, and return those that were written.

        A generation that was settled meanwhile, or is leased to another poller, is not changed. Locks rows in the
        order of ids, like `Recorder.record`. Raises `DatabaseUnavailable`.
        """
        ids = sorted({result.lease.id for result in results})
        if not ids:
            return []
        parameter = ids_parameter(ids, is_sqlite=self._database.is_sqlite)
        async with self._database.transaction() as connection:
            leases = {row.id: row.lease_until for row in await connection.execute(self._lock, {"ids": parameter})}
            current = [result for result in results if leases.get(result.lease.id) == result.lease.lease_until]
            if current:
                await connection.execute(self._write, self._parameters(current))
        return current

    async def advance(self, *, to: datetime, later_than: datetime) -> int:
        """Move polls that are scheduled after `later_than` to the time `to`, and return how many (1000 at most).

        For generations whose callbacks can't be expected any more. Leased generations, and those that are polled less
        often after failures, keep their time. Where there are none, nothing is written. Raises `DatabaseUnavailable`.
        """
        async with self._database.read() as connection:
            later = await connection.execute(self._find_later, {"later_than": later_than, "most": 1})
            if later.first() is None:
                return 0
        parameters = {"to": to, "later_than": later_than, "most": _AT_ONCE}
        async with self._database.transaction() as connection:
            return (await connection.execute(self._advance, parameters)).rowcount

    async def reset_impossible(self, bounds: PollTimeLimits, *, to: datetime) -> int:
        """Move polls that are scheduled later than `bounds` to the time `to`, and return how many (1000 at most).

        Such a time was written before the clock was set back. Raises `DatabaseUnavailable`.
        """
        parameters = {"to": to, "most": _AT_ONCE, **asdict(bounds)}
        async with self._database.transaction() as connection:
            return (await connection.execute(self._reset_impossible, parameters)).rowcount

    def _parameters(self, results: Sequence[PollResult]) -> Any:  # noqa: ANN401 - as the two statements take them
        rows = [
            {"new_id": result.lease.id, **{f"new_{name}": getattr(result, name) for name in _WRITTEN}}
            for result in results
        ]
        return rows if self._database.is_sqlite else {name: [row[name] for row in rows] for name in rows[0]}


def _lock(*, is_sqlite: bool) -> Select[Any]:
    is_polled = any_of(generations.c.id, "ids", is_sqlite=is_sqlite) & generations.c.next_poll_at.is_not(None)
    chosen = select(generations.c.id, generations.c.lease_until).where(is_polled)
    return chosen.order_by(generations.c.id).with_for_update()


def _write_each() -> Update:
    new = {name: bindparam(f"new_{name}", type_=generations.c[name].type) for name in _WRITTEN}
    changes = {**new, "lease_until": None, "revision": generations.c.revision + 1}
    return update(generations).where(generations.c.id == bindparam("new_id")).values(changes)


def _write_all() -> Update:
    arrays = [
        func.unnest(bindparam(f"new_{name}", type_=ARRAY(generations.c[name].type))).label(name)
        for name in ("id", *_WRITTEN)
    ]
    new = select(*arrays).subquery("new")
    changes = {name: new.c[name] for name in _WRITTEN}
    counted = {"lease_until": None, "revision": generations.c.revision + 1}
    return update(generations).where(generations.c.id == new.c.id).values({**changes, **counted})


def _later() -> Select[Any]:
    g = generations.c
    chosen = select(g.id).where(
        g.next_poll_at > bindparam("later_than", type_=UtcDateTime),
        g.tracking == Tracking.WATCHING,
        g.lease_until.is_(None),
        g.poll_failures == 0,
        g.not_found_count == 0,
    )
    return chosen.limit(bindparam("most"))


def _advance() -> Update:
    # Skips locked rows, so that it can't take part in a deadlock; they are updated by a later run.
    g = generations.c
    waiting = _later().with_for_update(skip_locked=True).cte("waiting")
    to = bindparam("to", type_=UtcDateTime)
    changes = {"next_poll_at": to, "revision": g.revision + 1}
    return update(generations).where(g.id.in_(select(waiting.c.id))).values(changes)


def _reset_impossible() -> Update:
    g = generations.c
    beyond = {name: g.next_poll_at > bindparam(name, type_=UtcDateTime) for name in ("watched", "failing", "stalled")}
    is_watched = g.tracking == Tracking.WATCHING
    is_well = and_(is_watched, g.poll_failures == 0, g.not_found_count == 0)
    impossible = (
        select(g.id)
        .where(beyond["watched"], or_(is_well, and_(is_watched, beyond["failing"]), beyond["stalled"]))
        .limit(bindparam("most"))
        .with_for_update(skip_locked=True)
        .cte("impossible")
    )
    to = bindparam("to", type_=UtcDateTime)
    change = update(generations).where(g.id.in_(select(impossible.c.id)))
    return change.values(next_poll_at=to, lease_until=None, revision=g.revision + 1)
