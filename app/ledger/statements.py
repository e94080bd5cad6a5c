"""The set-based statements of `record`: their text never depends on how many rows there are, so they stay prepared."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, Select, Table, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement

from app.ledger.tables import deliveries, generations, transitions

GENERATION_COLUMNS = tuple(column.name for column in generations.c)
_TRANSITION_COLUMNS = tuple(column.name for column in transitions.c if column.name != "sequence")
_DELIVERY_COLUMNS = tuple(column.name for column in deliveries.c if column.name != "body_pruned_at")


def any_of(column: ColumnElement[str], parameter: str, *, is_sqlite: bool) -> ColumnElement[bool]:
    """`column` is one of the strings bound to `parameter`: an array on PostgreSQL, a JSON array on SQLite."""
    if is_sqlite:
        values = func.json_each(bindparam(parameter)).table_valued("value")
        return column.in_(select(values.c.value))
    return column == func.any(bindparam(parameter, type_=ARRAY(column.type)))


class Statements:
    """All that `record` says to one kind of database."""

    def __init__(self, *, is_sqlite: bool) -> None:
        self.is_sqlite = is_sqlite
        self.lock_generations = self._lock_generations()
        self.known_events: Select[Any] = select(deliveries.c.event_id, deliveries.c.outcome).where(
            any_of(deliveries.c.event_id, "ids", is_sqlite=is_sqlite)
        )
        self.write_generations = self._write_generations()
        self.write_deliveries = self._write_deliveries()
        self.write_transitions = self._insert(transitions, _TRANSITION_COLUMNS)

    def _lock_generations(self) -> Select[Any]:
        # In id order, everywhere: two batches can wait for each other, but never in a circle.
        chosen = select(generations).where(any_of(generations.c.id, "ids", is_sqlite=self.is_sqlite))
        return chosen.order_by(generations.c.id).with_for_update()

    def _write_generations(self) -> Any:  # noqa: ANN401 - one of two dialects' Insert
        # The arbiter is the primary key's index, so this never scans. `revision` tells a row that somebody else
        # inserted since we looked: it is left alone, and the missing row count makes `record` start again.
        insert = self._insert(generations, GENERATION_COLUMNS)
        new = {name: insert.excluded[name] for name in GENERATION_COLUMNS if name not in ("id", "first_seen_at")}
        return insert.on_conflict_do_update(
            index_elements=[generations.c.id],
            set_=new,
            where=generations.c.revision < insert.excluded.revision,
        )

    def _write_deliveries(self) -> Any:  # noqa: ANN401 - one of two dialects' Insert
        insert = self._insert(deliveries, _DELIVERY_COLUMNS)
        return insert.on_conflict_do_update(
            index_elements=[deliveries.c.event_id],
            set_={"attempts": deliveries.c.attempts + insert.excluded.attempts},
        )

    def _insert(self, table: Table, columns: Sequence[str]) -> Any:  # noqa: ANN401 - one of two dialects' Insert
        if self.is_sqlite:
            return sqlite.insert(table).values({name: bindparam(name) for name in columns})
        unnested = [func.unnest(bindparam(name, type_=ARRAY(table.c[name].type))).label(name) for name in columns]
        return postgresql.insert(table).from_select(list(columns), select(*unnested))

    def parameters(self, rows: Sequence[dict[str, Any]]) -> Any:  # noqa: ANN401
        """`rows` as the write statements take them: one array per column on PostgreSQL, as they are on SQLite."""
        if self.is_sqlite:
            return list(rows)
        return {name: [row[name] for row in rows] for name in rows[0]}
