"""How many rows a statement reads, whether it returns them or not: PostgreSQL counts them."""

from typing import Any

import orjson
from sqlalchemy import Connection, event

from app.core.database import Database


class RowsRead:
    """Runs every SELECT once more, explained, and counts the rows of one table that it read."""

    def __init__(self, database: Database, table: str) -> None:
        self.counts: list[int] = []
        """One for each statement that reads from the table."""
        self._table = table
        for engine in (database.engine, database.caller_engine):
            event.listen(engine.sync_engine, "before_cursor_execute", self._count)

    def _count(self, _: Connection, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.startswith("SELECT") and f"FROM {self._table}" in statement:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
            [(plans,)] = cursor.fetchall()
            self.counts.append(self._read((orjson.loads(plans) if isinstance(plans, str) else plans)[0]["Plan"]))

    def _read(self, plan: dict[str, Any]) -> int:
        below: int = sum(map(self._read, plan.get("Plans", ())))
        if plan.get("Relation Name") != self._table:
            return below
        read: float = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        return below + round(read * float(plan["Actual Loops"]))
