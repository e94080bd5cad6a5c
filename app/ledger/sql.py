"""The statements of the reads: lists, usage, and the expressions that they share."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from app.core.database import UtcDateTime
from app.core.pagination import MOST_WALKED, Part, Walk
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


MOST_WALKED_FENCED = 500
"""For a fenced token: deliveries, the generation of each of which is looked up, and generations, of two walks each."""
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


def list_generations(chosen: GenerationFilter, *, after: Position | None, limit: int, is_sqlite: bool) -> Listing:
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
    must_be_settled = chosen.tracking is Tracking.SETTLED and chosen.status is None
    lists: list[Walk]
    if is_open:
        joined = sa.select(generations).join(polls, p.generation_id == g.id)
        states = OPEN_STATES if chosen.tracking is None else (chosen.tracking,)
        lists = [Walk(joined.where(p.state == state), (p.first_seen_at, p.generation_id)) for state in states]
    elif chosen.owner is not None:
        # Exactly one of them has each generation that `is_visible`.
        tracked = sa.select(generations).where(g.submitted_by.is_distinct_from(chosen.owner))
        lists = [
            Walk(sa.select(generations), _BY_TIME, (g.submitted_by, chosen.owner)),
            Walk(tracked, _BY_TIME, (g.tracked_by, chosen.owner)),
        ]
    else:
        first = next((name for name in others if name != "status" or chosen.status is Status.FAILED), None)
        value = others.pop(first) if first is not None else None
        if first == "status":
            lists = [Walk(sa.select(generations).where(FAILED), _BY_TIME)]
        else:
            lists = [Walk(sa.select(generations), _BY_TIME, None if first is None else (g[first], value))]
    is_walk = bool(others) or must_be_settled or (is_open and chosen.owner is not None)
    most_walked = MOST_WALKED if chosen.owner is None else MOST_WALKED_FENCED
    most = max(MOST_WALKED_OPEN if is_open else most_walked, limit) if is_walk else limit
    part = _part(after, chosen.created_after, chosen.created_before)
    parts = [walk.read(part, limit=most, is_sqlite=is_sqlite) for walk in lists]
    # The rows are chosen first, whatever a planner expects of the other table.
    if len(parts) == 1:
        walked = parts[0].subquery("walked")
        order = lists[0].order_of(walked, "first_seen_at", "id")
    else:
        merged = sa.union_all(*(sa.select(each.subquery()) for each in parts)).subquery("merged")
        order = [merged.c.first_seen_at.desc(), merged.c.id.desc()]
        walked = sa.select(merged).order_by(*order).limit(most).subquery("walked")
        order = [walked.c.first_seen_at.desc(), walked.c.id.desc()]
    is_none = is_open and (chosen.tracking is Tracking.SETTLED or chosen.status in TERMINAL)
    matching = [walked.c[name] == value for name, value in others.items()]
    matching += visible_to(chosen.owner, walked) if is_open else ()
    matching += [walked.c.settled_at.is_not(None)] if must_be_settled else [sa.false()] if is_none else []
    page = rows.select_generations(walked).where(*matching).order_by(*order).limit(limit)
    last = _last(walked.c.first_seen_at, walked.c.id, order, most) if is_walk and not is_none else None
    return Listing(page, last)


_LAST_CHARACTER = "\U0010ffff"


def search_generations(beginning: str, *, owner: str | None, limit: int) -> sa.Select[Any]:
    """At most `limit` generations whose ids begin so, by id; of the first `MOST_WALKED` those that `owner` sees."""
    g = generations.c
    walk = sa.select(generations).where(g.id >= beginning, g.id < beginning + _LAST_CHARACTER).order_by(g.id)
    walked = walk.limit(limit if owner is None else MOST_WALKED).subquery("walked")
    w = walked.c
    return rows.select_generations(walked).where(*visible_to(owner, walked)).order_by(w.id).limit(limit)


def visible_to(owner: str | None, source: sa.FromClause) -> Conditions:
    """The condition that a generation of `source` `is_visible` to this owner; none where all are."""
    return () if owner is None else (sa.or_(source.c.submitted_by == owner, source.c.tracked_by == owner),)


def list_deliveries(chosen: DeliveryFilter, *, after: Position | None, limit: int, is_sqlite: bool) -> Listing:
    """At most `limit` deliveries that come after `after`, newest first, without bodies and headers."""
    d = deliveries.c
    others: dict[str, object] = {
        name: value for name in ("outcome", "event_type") if (value := getattr(chosen, name)) is not None
    }
    walk = Walk(sa.select(*_ABOUT_DELIVERIES), (d.received_at, d.event_id))
    is_by_key = chosen.event_id is not None or chosen.generation_id is not None
    if is_by_key:
        keys = DeliveryFilter(event_id=chosen.event_id, generation_id=chosen.generation_id)
        walk = replace(walk, rows=walk.rows.where(*delivery_conditions(keys, is_sqlite=is_sqlite)))
    elif others.get("outcome", Outcome.APPLIED) != Outcome.APPLIED:
        walk = replace(walk, rows=walk.rows.where(NOT_APPLIED), among=(d.outcome, others.pop("outcome")))
    elif others.get("event_type", _USUAL) != _USUAL:
        walk = replace(walk, rows=walk.rows.where(NOT_SUCCEEDED), among=(d.event_type, others.pop("event_type")))
    is_walk = bool(others) or chosen.owner is not None
    most = max(MOST_WALKED if chosen.owner is None else MOST_WALKED_FENCED, limit) if is_walk else limit
    part = _part(after, chosen.received_after, chosen.received_before)
    walked = walk.read(part, limit=most, is_sqlite=is_sqlite).subquery("walked")
    page = sa.select(walked).where(*(walked.c[name] == value for name, value in others.items()))
    if chosen.owner is not None:
        visible = visible_to(chosen.owner, generations)
        page = page.where(sa.exists().where(generations.c.id == walked.c.generation_id, *visible))
    order = walk.order_of(walked, "received_at", "event_id")
    last = _last(walked.c.received_at, walked.c.event_id, order, most) if is_walk else None
    return Listing(page.order_by(*order).limit(limit), last, is_walk=not is_by_key)


_BY_TIME = (generations.c.first_seen_at, generations.c.id)


def _part(after: Position | None, first: datetime | None, end: datetime | None) -> Part:
    return Part(None if after is None else (after.at, after.id), first, end)


def _last(
    at: sa.ColumnElement[datetime], key: sa.ColumnElement[str], order: list[sa.ColumnElement[Any]], most: int
) -> sa.Select[Any]:
    columns: list[sa.ColumnElement[Any]] = [at, key]
    return sa.select(*columns).order_by(*order).offset(most - 1).limit(1)


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


# Expressions for both databases; their text does not depend on the number of values.


def any_of(column: sa.ColumnElement[str], parameter: str, *, is_sqlite: bool) -> sa.ColumnElement[bool]:
    """The condition that `column` is one of `parameter`: an array on PostgreSQL, a JSON array on SQLite."""
    return _is_in(column, sa.bindparam(parameter, type_=None if is_sqlite else sa.ARRAY(column.type)))


def is_among(column: sa.ColumnElement[str], ids: Iterable[str], *, is_sqlite: bool) -> sa.ColumnElement[bool]:
    """The condition that `column` is one of `ids`; its text is the same for any number of them."""
    value = ids_parameter(list(ids), is_sqlite=is_sqlite)
    return _is_in(column, sa.literal(value, None if is_sqlite else sa.ARRAY(column.type)))


def _is_in(column: sa.ColumnElement[str], values: sa.BindParameter[Any]) -> sa.ColumnElement[bool]:
    if isinstance(values.type, sa.ARRAY):
        return column == sa.func.any(values)
    return column.in_(sa.select(sa.func.json_each(values).table_valued("value").c.value))


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
    both = sa.union_all(*parts).subquery("both")
    hour = both.c.hour
    day = sa.func.date(hour, type_=sa.Date()) if is_sqlite else sa.cast(sa.func.timezone("UTC", hour), sa.Date)
    key = (day.label("day"), both.c.submitted_by, both.c.model)
    # The many rows of hours are read and summed once; all that follows is about the few that are left.
    days = sa.select(*key, *_sums(both)).group_by(*key).cte("days")
    busiest = sa.select(days.c.model).where(days.c.model.is_not(None)).group_by(days.c.model)
    busiest = busiest.order_by(sa.func.sum(days.c.generations).desc(), days.c.model).limit(sa.bindparam("models"))
    is_shown = sa.or_(days.c.model.is_(None), days.c.model.in_(busiest))
    model = sa.case((is_shown, days.c.model), else_=sa.literal(OTHER_MODELS)).label("shown_model")
    named = sa.select(days.c.day, days.c.submitted_by, model, *(days.c[name] for name in _SUMMED)).subquery("named")
    n = named.c
    return (
        sa.select(n.day, n.submitted_by, n.shown_model.label("model"), *_sums(named))
        .group_by(n.day, n.submitted_by, n.shown_model)
        .having(sa.func.sum(n.generations) != 0)
        .limit(sa.bindparam("most"))
    )


def _sums(source: sa.FromClause) -> list[sa.ColumnElement[Any]]:
    # Of an integer's sum PostgreSQL makes a larger type, which its driver would return as another one.
    return [sa.cast(sa.func.sum(source.c[name]), usage_hours.c[name].type).label(name) for name in _SUMMED]


def to_usage_line(row: sa.RowMapping) -> UsageLine:
    """The line in a row of `usage_statement`."""
    rounded = {name: round(row[name], _DECIMALS) for name in ("reserved_credits", "final_credits")}
    return UsageLine(**{**row, **rounded})
