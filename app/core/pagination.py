"""Lists, the newest first, of which one page reads a bounded number of rows, whatever its filters match."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ARRAY, ColumnElement, FromClause, RowMapping, Select, any_, literal, select, text
from sqlalchemy import tuple_ as row
from sqlalchemy.ext.asyncio import AsyncConnection

MOST_WALKED: Final = 1000
"""Rows of an index that one page reads at most: two filters that are each common may never meet."""

BY_INDEX: Final = text("SET LOCAL enable_seqscan = off")
"""Executed on PostgreSQL before a statement that must use an index, where its estimates would make it scan a table."""

IN_ORDER: Final = text(
    "SELECT "
    + ", ".join(f"set_config('enable_{way}', 'off', true)" for way in ("seqscan", "bitmapscan", "hashjoin", "sort"))
)
"""Executed on PostgreSQL before a statement that reads a page: it walks along an index and ends with the page.

PostgreSQL estimates a comparison of pairs by its first column only, and takes columns for independent of each other:
it would rather read and sort all rows.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a list that a page is of; each is about the columns by which the list is ordered."""

    after: Sequence[Any] | None = None
    """The values of the row after which the page begins; None at the beginning."""
    first: Any = None
    """The least value of the first column; None for all."""
    end: Any = None
    """The value of the first column that ends the list and is not in it; None for all."""


@dataclass(frozen=True, slots=True)
class Walk:
    """Rows that are read along an index, from its end."""

    rows: Select[Any]
    order: Sequence[ColumnElement[Any]]
    """The columns of the index, in which no two rows are alike."""
    among: tuple[ColumnElement[Any], object] | None = None
    """A column before them in the index, and the value that it has in these rows."""

    def read(self, part: Part, *, limit: int, is_sqlite: bool) -> Select[Any]:
        """At most `limit` rows of this part."""
        at, statement, order = self.order[0], self.rows, list(self.order)
        if self.among is not None:
            column, value = self.among
            # With a plain comparison, PostgreSQL may walk along another index and leave out what has another value:
            # for long, if all that has this one is old. Of an array it does not know that the order needs no `column`.
            of_one = any_(literal([value], ARRAY(column.type)))
            statement = statement.where(column == (value if is_sqlite else of_one))
            order = [column, *order]
        if part.first is not None:
            statement = statement.where(at >= part.first)
        # Only the lower of two ends: with both, PostgreSQL may begin at the other, and read all between them.
        if part.after is not None and (part.end is None or part.after[0] < part.end):
            # Compared as a row, for which the index is used; an offset would read all the rows that it skips.
            values = [literal(value, column.type) for column, value in zip(self.order, part.after, strict=True)]
            statement = statement.where(row(*self.order) < row(*values))
        elif part.end is not None:
            statement = statement.where(at < part.end)
        return statement.order_by(*(column.desc() for column in order)).limit(limit)

    def order_of(self, walked: FromClause, *names: str) -> list[ColumnElement[Any]]:
        """The order in which `walked` was read, by the names of its columns: in this one nothing is sorted again."""
        leading = [] if self.among is None else [walked.c[self.among[0].key or ""]]
        return [column.desc() for column in (*leading, *(walked.c[name] for name in names))]


@dataclass(frozen=True, slots=True)
class IdPage:
    """A part of a list by id. With filters it may be short, even empty, though the list goes on."""

    rows: Sequence[RowMapping]
    last: str | None
    """The id after which the next page begins; None at the end of the list."""


async def read_page(
    connection: AsyncConnection, walk: Walk, part: Part, matching: Mapping[str, object], *, limit: int
) -> IdPage:
    """At most `limit` rows by their ids; those on the way are compared with `matching`, values by column."""
    most = max(MOST_WALKED, limit + 1) if matching else limit + 1
    is_sqlite = connection.dialect.name == "sqlite"
    walked = walk.read(part, limit=most, is_sqlite=is_sqlite).subquery("walked")
    order = walk.order_of(walked, "id")
    page = select(walked).where(*(walked.c[name] == value for name, value in matching.items()))
    rows = (await connection.execute(page.order_by(*order).limit(limit + 1))).mappings().all()
    if len(rows) > limit:
        return IdPage(rows[:limit], rows[limit - 1]["id"])
    last: str | None = None
    if matching:
        last = await connection.scalar(select(walked.c.id).order_by(*order).offset(most - 1).limit(1))
    return IdPage(rows, last)
