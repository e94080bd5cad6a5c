"""What was submitted and what it cost, summed by caller, model and day: from sums by the hour."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import ColumnElement, Date, RowMapping, Select, bindparam, cast, func, select, union_all

from app.core.database import Moment
from app.ledger.usage_tables import usage_changes, usage_hours

# SQLite adds and takes floats: what is left of that begins further behind.
_DECIMALS = 9
_SUMMED = ("generations", "open", "reserved_credits", "final_credits")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """The generations of one model that one token submitted on one day."""

    day: date
    """In UTC, of `first_seen_at`."""
    submitted_by: str | None
    """Name of the token; None for generations that were not submitted through us."""
    model: str | None
    generations: int
    open: int
    """How many of them have no outcome yet: what they will cost is not in `final_credits`."""
    reserved_credits: float
    final_credits: float


def usage_statement(*, is_sqlite: bool) -> Select[Any]:
    """Lines of the generations first seen from the hour `:first` on and before `:end`, `:most` at most, in any order.

    Reads the sums of those hours and what has changed since they were made, which is little: no generation.
    """
    parts = [
        select(*(table.c[name] for name in ("hour", "submitted_by", "model", *_SUMMED))).where(
            table.c.hour >= bindparam("first", type_=Moment),
            table.c.hour < bindparam("end", type_=Moment),
            table.c.id > 0,  # so that the changes, which are few, can be found by their key
        )
        for table in (usage_hours, usage_changes)
    ]
    both = union_all(*parts).subquery("both")
    day = _day(both.c.hour, is_sqlite=is_sqlite)
    sums = {name: func.sum(both.c[name], type_=both.c[name].type) for name in _SUMMED}
    return (
        select(day.label("day"), both.c.submitted_by, both.c.model, *(it.label(name) for name, it in sums.items()))
        .group_by(day, both.c.submitted_by, both.c.model)
        .having(sums["generations"] != 0)
        .limit(bindparam("most"))
    )


def to_usage_line(row: RowMapping) -> UsageLine:
    """A row of `usage_statement`."""
    values = dict(row)
    for name in ("reserved_credits", "final_credits"):
        values[name] = round(values[name], _DECIMALS)
    return UsageLine(**values)


def _day(hour: ColumnElement[datetime], *, is_sqlite: bool) -> ColumnElement[date]:
    if is_sqlite:
        return func.date(hour, type_=Date())
    return cast(func.timezone("UTC", hour), Date)
