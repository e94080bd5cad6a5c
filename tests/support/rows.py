"""Reads tables: generations together with their rows of polls."""

from typing import Any

from sqlalchemy import Table, select

from app.core.database import Database
from app.ledger.tables import generations, polls

_POLLED = [polls.c[name].label(f"polled_{name}") for name in polls.c.keys()]  # noqa: SIM118 - it is no dict


async def table_rows(database: Database, table: Table) -> list[dict[str, Any]]:
    """All that is in the table, by its key; a generation has the columns of `polls` too, its state as `tracking`."""
    statement = select(table)
    if table is generations:
        joined = generations.outerjoin(polls, polls.c.generation_id == generations.c.id)
        statement = select(generations, *_POLLED).select_from(joined)
    async with database.read() as connection:
        rows = (await connection.execute(statement.order_by(*table.primary_key.columns))).mappings().all()
    return [_with_poll(dict(row)) for row in rows] if table is generations else [dict(row) for row in rows]


def _with_poll(row: dict[str, Any]) -> dict[str, Any]:
    poll = {str(column.name): row.pop(f"polled_{column.name}") for column in polls.c}
    is_open = poll["generation_id"] is not None
    assert is_open == (row["settled_at"] is None), f"{row['id']} is {row['status']}, and polled: {is_open}"
    return (
        {**poll, **row, "polls": poll["polls"], "tracking": poll["state"]}
        if is_open
        else {**poll, **row, "tracking": "settled"}
    )
