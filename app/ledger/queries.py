"""The reads of the ledger for the API, each one statement in a short read transaction."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, ScalarSelect, Select, TextClause, bindparam, func, select

from app.core.database import Database, UtcDateTime
from app.core.drivers import RawPostgres
from app.core.pagination import BY_INDEX, IN_ORDER
from app.ledger import rows, sql
from app.ledger.models import (
    MOST_OPEN,
    MOST_OVERDUE,
    OPEN_STATES,
    DeliveryFilter,
    Generation,
    GenerationFilter,
    Item,
    LedgerStats,
    Page,
    Position,
    StoredDelivery,
    Tracking,
    Transition,
)
from app.ledger.postgres import BY_ID
from app.ledger.tables import deliveries, generations, polls, transitions

_MODELS_SHOWN = (200, 20, 0)


class Queries:
    """Reads the ledger. Every method raises `DatabaseUnavailable` where the database can't be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database
        among_ids = sql.any_of(generations.c.id, "ids", is_sqlite=database.is_sqlite)
        self._by_id: Select[Any] = rows.SELECT_GENERATIONS.where(among_ids)
        self._settled: Select[Any] = select(generations.c.id).where(among_ids, generations.c.settled_at.is_not(None))
        newest = select(func.max(deliveries.c.received_at, type_=UtcDateTime))
        self._status = select(
            sql.counted(select(polls.c.generation_id), most=MOST_OPEN).label("open"),
            overdue().label("overdue"),
            newest.scalar_subquery().label("last_verified_at"),
        )
        self._usage, self._own_usage = (
            sql.usage_statement(is_sqlite=database.is_sqlite, is_owned=is_owned) for is_owned in (False, True)
        )

    async def generations_by_id(self, ids: Sequence[str]) -> dict[str, Generation]:
        """The generations `ids` that are stored, by id."""
        direct = self._database.direct
        stored: Sequence[rows.Row]
        if isinstance(direct, RawPostgres):
            stored = await direct.fetch(BY_ID, list(ids))
        else:
            stored = await self._rows(self._by_id, self._ids(ids))
        # Both statements select the members in their order.
        return {row["id"]: rows.parse_generation(list(row.values())) for row in stored}

    async def settled_among(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` whose generation has a final status."""
        return [row["id"] for row in await self._rows(self._settled, self._ids(ids))]

    async def generations(self, chosen: GenerationFilter, *, after: Position | None, limit: int) -> Page[Generation]:
        """At most `limit` generations that come after `after`, newest first."""
        listing = sql.list_generations(chosen, after=after, limit=limit + 1, is_sqlite=self._database.is_sqlite)
        stored, last = await self._page(listing, limit)
        items = [rows.to_generation(row) for row in stored]
        return _page(items, limit, lambda item: Position(item.first_seen_at, item.id), last)

    async def search_generations(self, beginning: str, *, owner: str | None, limit: int) -> list[Generation]:
        """At most `limit` generations whose ids begin with `beginning`, by id, as far as `owner` sees them."""
        statement = sql.search_generations(beginning, owner=owner, limit=limit)
        return [rows.to_generation(row) for row in await self._rows(statement, plan=IN_ORDER)]

    async def transitions(self, generation_id: str) -> list[Transition]:
        """The transitions of a generation, oldest first; empty if it is not stored."""
        t = transitions.c
        statement = select(transitions).where(t.generation_id == generation_id).order_by(t.number)
        return [rows.to_transition(row) for row in await self._rows(statement)]

    async def deliveries(self, chosen: DeliveryFilter, *, after: Position | None, limit: int) -> Page[StoredDelivery]:
        """At most `limit` deliveries that come after `after`, newest first, without bodies and headers."""
        listing = sql.list_deliveries(chosen, after=after, limit=limit + 1, is_sqlite=self._database.is_sqlite)
        stored, last = await self._page(listing, limit)
        items = [rows.to_delivery(row) for row in stored]
        return _page(items, limit, lambda item: Position(item.received_at, item.event_id), last)

    async def delivery(self, event_id: str) -> StoredDelivery | None:
        """One delivery with its body and headers; None if it is not stored."""
        stored = await self._rows(select(deliveries).where(deliveries.c.event_id == event_id))
        return rows.to_delivery(stored[0]) if stored else None

    async def usage(
        self, first: datetime, end: datetime, *, most: int, owner: str | None = None
    ) -> list[sql.UsageLine]:
        """Sums by day, caller and model of the generations first seen from `first` until before `end`, in that order.

        Both are whole hours in UTC. Returns at most `most` lines; if it returns that many, there may be more. Models
        beyond the busiest, 200 or as many as have room in `most`, are summed as `OTHER_MODELS`. `owner`: only what
        this token submitted.
        """
        stored: Sequence[RowMapping] = ()
        statement = self._usage if owner is None else self._own_usage
        for models in _MODELS_SHOWN:
            window = {"first": first, "end": end, "most": most, "models": models}
            if owner is not None:
                window["owner"] = owner
            stored = await self._rows(statement, window, plan=BY_INDEX)
            if len(stored) < most:
                break
        # Sorted here, because the databases sort null differently.
        return sorted(map(sql.to_usage_line, stored), key=lambda it: (it.day, it.submitted_by or "", it.model or ""))

    async def describe_status(self, now: datetime) -> LedgerStats:
        """Counts of open and overdue generations at `now`, and when the newest delivery was received."""
        async with self._database.read(plan=BY_INDEX) as connection:  # for metrics: callers take none of these
            row = (await connection.execute(self._status, {"now": now})).mappings().one()
        return LedgerStats(**dict(row))

    async def open_by_tracking(self) -> dict[Tracking, int]:
        """How many open generations are in each state, each counted up to `MOST_OPEN`."""
        p = polls.c
        listed = (select(p.generation_id).where(p.state == state) for state in OPEN_STATES)
        counts: list[Any] = [sql.counted(each, most=MOST_OPEN) for each in listed]
        labelled = (count.label(state) for count, state in zip(counts, OPEN_STATES, strict=True))
        [row] = await self._rows(select(*labelled), plan=BY_INDEX)
        return {state: row[state] for state in OPEN_STATES}

    async def _rows(
        self, statement: Select[Any], parameters: dict[str, Any] | None = None, *, plan: TextClause | None = None
    ) -> Sequence[RowMapping]:
        async with self._database.read_for_caller(plan=plan) as connection:
            stored: Sequence[RowMapping] = (await connection.execute(statement, parameters)).mappings().all()
        return stored

    async def _page(self, listing: sql.Listing, limit: int) -> tuple[Sequence[RowMapping], Position | None]:
        """The rows of a page, and where a walk ended that found too few before the end of the list."""
        last = None
        async with self._database.read_for_caller(plan=IN_ORDER if listing.is_walk else BY_INDEX) as connection:
            stored: Sequence[RowMapping] = (await connection.execute(listing.page)).mappings().all()
            if len(stored) <= limit and listing.last is not None:
                last = (await connection.execute(listing.last)).first()
        return stored, None if last is None else Position(*last)

    def _ids(self, ids: Sequence[str]) -> dict[str, Any]:
        return {"ids": sql.ids_parameter(ids, is_sqlite=self._database.is_sqlite)}


def _page(items: list[Item], limit: int, position: Callable[[Item], Position], last: Position | None) -> Page[Item]:
    return Page(items[:limit], last if len(items) <= limit else position(items[limit - 1]))


def overdue() -> ScalarSelect[int]:
    """How many watched generations should have been polled before the parameter `now`, up to `MOST_OVERDUE`.

    A generation with a next poll is watched or stalled. With this condition PostgreSQL reads the index of next polls
    only as far as it counts; with `state = 'watching'` it may expect few rows and read all of them by another index.
    """
    p = polls.c
    late = (
        select(p.generation_id)
        .where(p.next_poll_at < bindparam("now", type_=UtcDateTime), p.state != Tracking.STALLED)
        .order_by(p.next_poll_at)
    )
    return sql.counted(late, most=MOST_OVERDUE)
