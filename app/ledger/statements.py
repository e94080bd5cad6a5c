"""Conditions that both databases understand, in text that never depends on how many values there are."""

from sqlalchemy import ARRAY, bindparam, func, select
from sqlalchemy.sql.elements import ColumnElement


def any_of(column: ColumnElement[str], parameter: str, *, is_sqlite: bool) -> ColumnElement[bool]:
    """`column` is one of the strings bound to `parameter`: an array on PostgreSQL, a JSON array on SQLite."""
    if is_sqlite:
        values = func.json_each(bindparam(parameter)).table_valued("value")
        return column.in_(select(values.c.value))
    return column == func.any(bindparam(parameter, type_=ARRAY(column.type)))
