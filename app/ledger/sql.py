"""The statements of the reads: lists, usage, and the expressions that they share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import product
from typing import Any

import sqlalchemy as sa

from app.core.database import UtcDateTime
from app.ledger import rows
from app.ledger.models import OPEN_STATES, DeliveryFilter, GenerationFilter, Outcome, Position, Status, Tracking
from app.ledger.tables import (
    FAILED,
    NOT_APPLIED,
    NOT_SUCCEEDED,
    deliveries,
    generations,
    polls,
    transitions,
    usage_changes,
    usage_hours,
)

TERMINAL = (Status.SUCCEEDED, Status.FAILED)
_USUAL = "generation.succeeded"
_ABOUT_DELIVERIES = tuple(column for column in deliveries.c if column.name not in ("body", "headers"))
Conditions = tuple[sa.ColumnElement[bool], ...]


MOST_WALKED = 1000
"""Rows of an index that one page reads at most: two filters that are each common may never meet."""
MOST_WALKED_OPEN = 250
"""Of open ones, each of which is looked up by the key of its poll."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The statements for one page of a list. With several filters it may be short though the list goes on."""

    page: sa.Select[Any]
    last: sa.Select[Any] | None
    """Time and id of the last row that was walked over; no row if the walk came to the end of the list."""
    is_walk: bool = True
    """It walks along an index in the order of the list; else its rows are few, and are sorted once they are read."""


def list_generations(chosen: GenerationFilter, *, after: Position | None, limit: int) -> Listing:
    """At most `limit` generations that come after `after`, newest first.

    Walks along the index of one filter, and compares the rows with the other filters.
    """
    g, p = generations.c, polls.c
    is_open = chosen.tracking in OPEN_STATES or chosen.status in (Status.QUEUED, Status.PROCESSING)
    others: dict[str, object] = {
        name: value
        for name in ("client_request_id", "status", "submitted_by", "model")
        if (value := getattr(chosen, name)) is not None
    }
    first: Conditions = ()
    if not is_open and chosen.owner is None:
        name = next((name for name in others if name != "status" or chosen.status is Status.FAILED), None)
        value = others.pop(name) if name is not None else None
        first = (
            (sa.type_coerce(FAILED, sa.Boolean),) if name == "status" else () if name is None else (g[name] == value,)
        )
    must_be_settled = chosen.tracking is Tracking.SETTLED and chosen.status is None
    is_walk = bool(others) or must_be_settled
    most = max(MOST_WALKED_OPEN if is_open else MOST_WALKED, limit) if is_walk else limit
    if is_open:
        joined = generations.join(polls, p.generation_id == g.id)
        states = OPEN_STATES if chosen.tracking is None else (chosen.tracking,)
        parts = [
            (sa.select(generations).select_from(joined).where(p.state == it), p.first_seen_at, p.generation_id)
            for it in states
        ]
    else:
        parts = [(sa.select(generations), g.first_seen_at, g.id)]
    lists = [
        _newest_first(
            part.where(*first, *visible, *_between(at, chosen.created_after, chosen.created_before)),
            at,
            key,
            after=after,
            limit=most,
        )
        for (part, at, key), visible in product(parts, _visible(chosen.owner))
    ]
    # The rows are chosen first, whatever a planner expects of the other table.
    merged = lists[0] if len(lists) == 1 else sa.union_all(*(sa.select(part.subquery()) for part in lists))
    walked = merged.subquery("walked")
    if len(lists) > 1:
        walked = _newest_first(
            sa.select(walked), walked.c.first_seen_at, walked.c.id, after=None, limit=most
        ).subquery()
    is_none = is_open and (chosen.tracking is Tracking.SETTLED or chosen.status in TERMINAL)
    matching = [walked.c[name] == value for name, value in others.items()]
    matching += [walked.c.settled_at.is_not(None)] if must_be_settled else [sa.false()] if is_none else []
    page = rows.select_generations(walked).where(*matching)
    page = page.order_by(walked.c.first_seen_at.desc(), walked.c.id.desc()).limit(limit)
    return Listing(page, _last(walked.c.first_seen_at, walked.c.id, most) if is_walk and not is_none else None)


_LAST_CHARACTER = "\U0010ffff"


def search_generations(beginning: str, *, owner: str | None, limit: int) -> sa.Select[Any]:
    """At most `limit` generations whose ids begin so, by id; of the first `MOST_WALKED` those that `owner` sees."""
    g = generations.c
    walk = sa.select(generations).where(g.id >= beginning, g.id < beginning + _LAST_CHARACTER).order_by(g.id)
    walked = walk.limit(limit if owner is None else MOST_WALKED).subquery("walked")
    w = walked.c
    visible = () if owner is None else (sa.or_(w.submitted_by == owner, w.tracked_by == owner),)
    return rows.select_generations(walked).where(*visible).order_by(w.id).limit(limit)


def _visible(owner: str | None) -> tuple[Conditions, ...]:
    """`is_visible` as conditions, of which exactly one holds for each visible row: an index serves each."""
    g = generations.c
    if owner is None:
        return ((),)
    return ((g.submitted_by == owner,), (g.tracked_by == owner, g.submitted_by.is_distinct_from(owner)))


def visible_to(owner: str | None) -> Conditions:
    """The condition that a generation `is_visible` to this owner; none where all are."""
    return () if owner is None else (sa.or_(*(sa.and_(*conditions) for conditions in _visible(owner))),)


def list_deliveries(chosen: DeliveryFilter, *, after: Position | None, limit: int, is_sqlite: bool) -> Listing:
    """At most `limit` deliveries that come after `after`, newest first, without bodies and headers."""
    d = deliveries.c
    others: dict[str, object] = {
        name: value
        for name in ("event_id", "generation_id", "outcome", "event_type")
        if (value := getattr(chosen, name)) is not None
    }
    first = next((name for name in others if others[name] not in (Outcome.APPLIED, _USUAL)), None)
    if first is not None:
        others.pop(first)
    indexed = delivery_conditions(replace(chosen, **dict.fromkeys(others)), is_sqlite=is_sqlite)
    is_walk = bool(others) or chosen.owner is not None
    most = max(MOST_WALKED, limit) if is_walk else limit
    walk = sa.select(*_ABOUT_DELIVERIES).where(*indexed)
    walked = _newest_first(walk, d.received_at, d.event_id, after=after, limit=most).subquery("walked")
    page = sa.select(walked).where(*(walked.c[name] == value for name, value in others.items()))
    if chosen.owner is not None:
        page = page.where(sa.exists().where(generations.c.id == walked.c.generation_id, *visible_to(chosen.owner)))
    page = page.order_by(walked.c.received_at.desc(), walked.c.event_id.desc()).limit(limit)
    last = _last(walked.c.received_at, walked.c.event_id, most) if is_walk else None
    return Listing(page, last, is_walk=chosen.generation_id is None)


def _last(at: sa.ColumnElement[datetime], key: sa.ColumnElement[str], most: int) -> sa.Select[Any]:
    columns: list[sa.ColumnElement[Any]] = [at, key]
    return sa.select(*columns).order_by(at.desc(), key.desc()).offset(most - 1).limit(1)


def delivery_conditions(chosen: DeliveryFilter, *, is_sqlite: bool) -> Conditions:
    """The conditions for the deliveries of a choice."""
    d, theirs = deliveries.c, chosen.generation_id
    of_outcome = _equal(d.outcome, chosen.outcome)
    # Nearly all deliveries are applied, and only the index by time contains those.
    if chosen.outcome not in (None, Outcome.APPLIED):
        # A constant, not a parameter, so that the partial index is used. SQLite needs the index's own condition too.
        # PostgreSQL infers it, and would expect too few rows if it were repeated.
        constant = sa.bindparam(None, chosen.outcome.value, type_=d.outcome.type, literal_execute=True)
        of_outcome = (d.outcome == constant, *((sa.type_coerce(NOT_APPLIED, sa.Boolean),) if is_sqlite else ()))
    return (
        *_equal(d.event_id, chosen.event_id),
        *(() if theirs is None else (d.event_id.in_(events_of(lambda it: it == theirs)),)),
        *of_outcome,
        *_equal(d.event_type, chosen.event_type),
        *(() if chosen.event_type in (None, _USUAL) else (NOT_SUCCEEDED,)),
        *_between(d.received_at, chosen.received_after, chosen.received_before),
    )


def events_of(is_theirs: Callable[[sa.ColumnElement[str]], sa.ColumnElement[bool]]) -> sa.CompoundSelect[Any]:
    """The ids of the events about some generations; `is_theirs` is a condition on a column of their ids.

    What was applied is in the history: the index of deliveries by generation has only the others.
    """
    t, d = transitions.c, deliveries.c
    applied = sa.select(t.event_id).where(is_theirs(t.generation_id), t.event_id.is_not(None))
    return sa.union_all(applied, sa.select(d.event_id).where(is_theirs(d.generation_id), NOT_APPLIED))


def _equal(column: sa.ColumnElement[Any], value: object) -> Conditions:
    return () if value is None else (column == value,)


def _between(column: sa.ColumnElement[datetime], first: datetime | None, end: datetime | None) -> Conditions:
    from_first = () if first is None else (column >= first,)
    return from_first if end is None else (*from_first, column < end)


def _newest_first(
    statement: sa.Select[Any],
    at: sa.ColumnElement[datetime],
    key: sa.ColumnElement[str],
    *,
    after: Position | None,
    limit: int,
) -> sa.Select[Any]:
    # Compared as a pair, for which an index on (…, at, key) is used; an offset would read all the rows that it skips.
    if after is not None:
        position = sa.tuple_(sa.literal(after.at, at.type), sa.literal(after.id, key.type))
        statement = statement.where(sa.tuple_(at, key) < position)
    return statement.order_by(at.desc(), key.desc()).limit(limit)


# Expressions for both databases; their text does not depend on the number of values.


BY_INDEX = sa.text("SET LOCAL enable_seqscan = off")
"""Executed on PostgreSQL before a statement that must use an index, where its estimates would make it scan a table."""

IN_ORDER = sa.text(
    "SELECT "
    + ", ".join(f"set_config('enable_{way}', 'off', true)" for way in ("seqscan", "bitmapscan", "hashjoin", "sort"))
)
"""Executed on PostgreSQL before a statement that reads a page: it walks along an index and ends with the page.

PostgreSQL estimates a comparison of pairs by its first column only, and takes columns for independent of each other:
it would rather read and sort all rows.
"""


def any_of(column: sa.ColumnElement[str], parameter: str, *, is_sqlite: bool) -> sa.ColumnElement[bool]:
    """The condition that `column` is one of `parameter`: an array on PostgreSQL, a JSON array on SQLite."""
    if is_sqlite:
        values = sa.func.json_each(sa.bindparam(parameter)).table_valued("value")
        return column.in_(sa.select(values.c.value))
    return column == sa.func.any(sa.bindparam(parameter, type_=sa.ARRAY(column.type)))


def ids_parameter(ids: Sequence[str], *, is_sqlite: bool) -> str | list[str]:
    """The value of a parameter of `any_of`."""
    return rows.dump_json(list(ids)) if is_sqlite else list(ids)


def counted(statement: sa.Select[Any], *, most: int) -> sa.ScalarSelect[int]:
    """The number of rows of `statement`, up to `most`; further rows are not read."""
    return sa.select(sa.func.count()).select_from(statement.limit(most).subquery()).scalar_subquery()


# Usage by caller, model and day, from sums by the hour.


# SQLite adds and subtracts floats; their rounding errors are below this digit.
_DECIMALS = 9
OTHER_MODELS = "other"
_SUMMED = ("generations", "open", "reserved_credits", "final_credits")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """The generations of one model that one token submitted on one day."""

    day: date
    """In UTC, of `first_seen_at`."""
    submitted_by: str | None
    """Name of the token; None for generations that were not submitted through this service."""
    model: str | None
    generations: int
    open: int
    """How many of them are open: their cost is not in `final_credits` yet."""
    reserved_credits: float
    final_credits: float


def usage_statement(*, is_sqlite: bool, is_owned: bool = False) -> sa.Select[Any]:
    """At most `:most` lines, in any order, for generations first seen from the hour `:first` until before `:end`.

    Models beyond the `:models` busiest are one line each day: tokens may name any number of them.
    Reads the hourly sums and the few changes since they were computed; reads no generation. `is_owned`: only what the
    token `:owner` submitted.
    """
    parts = [
        sa.select(*(table.c[name] for name in ("hour", "submitted_by", "model", *_SUMMED))).where(
            table.c.hour >= sa.bindparam("first", type_=UtcDateTime),
            table.c.hour < sa.bindparam("end", type_=UtcDateTime),
            table.c.id > 0,  # so that the few changes can be read by their key
            *((table.c.submitted_by == sa.bindparam("owner"),) if is_owned else ()),
        )
        for table in (usage_hours, usage_changes)
    ]
    both = sa.union_all(*parts).cte("both")
    count = sa.func.sum(both.c.generations)
    busiest = sa.select(both.c.model).where(both.c.model.is_not(None)).group_by(both.c.model)
    busiest = busiest.order_by(count.desc(), both.c.model).limit(sa.bindparam("models"))
    is_shown = sa.or_(both.c.model.is_(None), both.c.model.in_(busiest))
    model = sa.case((is_shown, both.c.model), else_=sa.literal(OTHER_MODELS)).label("shown_model")
    named = sa.select(both.c.hour, both.c.submitted_by, model, *(both.c[name] for name in _SUMMED)).subquery("named")
    hour = named.c.hour
    day = sa.func.date(hour, type_=sa.Date()) if is_sqlite else sa.cast(sa.func.timezone("UTC", hour), sa.Date)
    sums = {name: sa.func.sum(named.c[name], type_=named.c[name].type) for name in _SUMMED}
    key = (named.c.submitted_by, named.c.shown_model)
    return (
        sa.select(day.label("day"), key[0], key[1].label("model"), *(it.label(name) for name, it in sums.items()))
        .group_by(day, *key)
        .having(sums["generations"] != 0)
        .limit(sa.bindparam("most"))
    )


def to_usage_line(row: sa.RowMapping) -> UsageLine:
    """The line in a row of `usage_statement`."""
    rounded = {name: round(row[name], _DECIMALS) for name in ("reserved_credits", "final_credits")}
    return UsageLine(**{**row, **rounded})
