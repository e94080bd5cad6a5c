"""What was submitted and what it cost, summed by caller, model and day in one statement."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Date, RowMapping, Select, bindparam, cast, func, select, text
from sqlalchemy.sql.elements import ColumnElement

from app.core.schema import Moment
from app.ledger.tables import generations

# PostgreSQL takes the rows of an index of two columns for scattered, and would read the whole table for a month of a
# year. Rows are written in the order of first_seen_at: a range of it lies together.
NEARLY_IN_ORDER = text("SET LOCAL random_page_cost = 1.1")


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
    """Lines of the generations first seen from `:first` on and before `:end`, `:most` at most, in any order.

    Reads that range of ix_generations_first_seen_at_id, on both databases.
    """
    g = generations.c
    day = _day(is_sqlite=is_sqlite).label("day")
    return (
        select(
            day,
            g.submitted_by,
            g.model,
            func.count().label("generations"),
            func.count().filter(g.settled_at.is_(None)).label("open"),
            func.coalesce(func.sum(g.reserved_credits), 0).label("reserved_credits"),
            func.coalesce(func.sum(g.final_credits), 0).label("final_credits"),
        )
        .where(g.first_seen_at >= bindparam("first", type_=Moment), g.first_seen_at < bindparam("end", type_=Moment))
        .group_by(day, g.submitted_by, g.model)
        .limit(bindparam("most"))
    )


def to_usage_line(row: RowMapping) -> UsageLine:
    """A row of `usage_statement`."""
    return UsageLine(**row)


def _day(*, is_sqlite: bool) -> ColumnElement[date]:
    seen = generations.c.first_seen_at
    if is_sqlite:
        return func.date(seen, type_=Date())
    return cast(func.timezone("UTC", seen), Date)
