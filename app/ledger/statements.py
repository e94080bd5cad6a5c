"""Parts of statements that both databases understand, in text that never depends on how many values there are."""

from enum import StrEnum
from typing import Any

from sqlalchemy import ARRAY, Boolean, ScalarSelect, Select, TextClause, bindparam, func, select, text, type_coerce
from sqlalchemy.sql.elements import ColumnElement

BY_INDEX = text("SET LOCAL enable_seqscan = off")
"""Said on PostgreSQL before a statement that an index serves, where estimates would have it read a whole table."""


def any_of(column: ColumnElement[str], parameter: str, *, is_sqlite: bool) -> ColumnElement[bool]:
    """`column` is one of the strings bound to `parameter`: an array on PostgreSQL, a JSON array on SQLite."""
    if is_sqlite:
        values = func.json_each(bindparam(parameter)).table_valued("value")
        return column.in_(select(values.c.value))
    return column == func.any(bindparam(parameter, type_=ARRAY(column.type)))


def is_rare(
    column: ColumnElement[str], word: StrEnum, rare: TextClause, *, is_sqlite: bool
) -> list[ColumnElement[bool]]:
    """`column` is this word, said so that an index WHERE `rare` is used: as a constant, since parameters prove nothing.

    SQLite must be told the index's own condition. PostgreSQL infers it, and would believe in fewer rows if told both.
    """
    is_word = column == bindparam(None, word.value, type_=column.type, literal_execute=True)
    return [is_word, type_coerce(rare, Boolean)] if is_sqlite else [is_word]


def counted(statement: Select[Any], *, most: int) -> ScalarSelect[int]:
    """How many rows `statement` has, as far as `most`: what comes after is not read."""
    return select(func.count()).select_from(statement.limit(most).subquery()).scalar_subquery()
