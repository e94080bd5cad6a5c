"""Writes rows to a table of SQLite, many with one statement, as SQLAlchemy would store their values."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Table

from app.core.database import Moment
from app.ledger.tables import generations

_LARGEST: Final = 128
"""Rows of one statement: 3,200 values of at most 32,766 (SQLite's default limit)."""
_WORDS: Final = frozenset({"status", "tracking", "settled_by", "from_status", "to_status", "source", "outcome"})
"""Columns that hold members of an enumeration: the driver takes three times as long to bind one as the text it is."""


class Rows:
    """Statements for 128, 64, 32 … 1 rows: any number of rows is a few of them, and all stay prepared.

    A value bound takes half the time of one that SQLite reads out of JSON, and one statement for each row would hand
    the interpreter to another thread each time.
    """

    def __init__(self, table: Table, columns: Sequence[str], on_conflict: str = "") -> None:
        places = ["?"] * len(columns)
        if table is generations:
            places[columns.index("revision")] = "? + 1"  # counts writes, however many reports a batch holds
        row = f"({', '.join(places)})"
        self._moments = tuple(n for n, name in enumerate(columns) if isinstance(table.c[name].type, Moment))
        self._words = tuple(n for n, name in enumerate(columns) if name in _WORDS)
        self._statements: list[tuple[int, str]] = []
        size = _LARGEST
        while size:
            values = ", ".join([row] * size)
            text = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES {values} {on_conflict}"  # noqa: S608
            self._statements.append((size, text))
            size //= 2

    def write(self, connection: sqlite3.Connection, written: Sequence[Sequence[Any]]) -> None:
        """Insert rows, each with its values in the order of the columns. Raises what `sqlite3` raises."""
        begin, left = 0, len(written)
        for size, statement in self._statements:
            while left >= size:
                connection.execute(statement, self._flat(written[begin : begin + size]))
                begin, left = begin + size, left - size

    def _flat(self, written: Sequence[Sequence[Any]]) -> list[Any]:
        values: list[Any] = []
        for row in written:
            at = len(values)
            values.extend(row)
            for place in self._moments:
                moment = values[at + place]
                if moment is not None:
                    values[at + place] = stamp(moment)
            for place in self._words:
                word = values[at + place]
                if word is not None:
                    values[at + place] = str.__str__(word)
        return values


@lru_cache(256)  # a batch holds many rows of few moments
def stamp(moment: datetime) -> str:
    """A moment as SQLAlchemy writes it: sortable text, in UTC. Raises TypeError for a naive one."""
    if moment.tzinfo is not UTC:
        if moment.tzinfo is None:
            message = "a time to be stored must be aware"
            raise TypeError(message)
        moment = moment.astimezone(UTC)
    return moment.isoformat(" ", "microseconds")[:26]
