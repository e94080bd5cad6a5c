"""The plans of what a database is asked."""

from sqlalchemy import Connection, event

from app.core.database import Database


def explain(database: Database, plans: list[str]) -> None:
    """Add the plan of every SELECT to `plans`, just before it is sent."""
    explaining = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"

    def ask(_connection: Connection, cursor: object, statement: str, parameters: object, *_: object) -> None:
        if statement.startswith(("SELECT", "WITH")):
            cursor.execute(f"{explaining} {statement}", parameters)  # type: ignore[attr-defined]
            plans.append("\n".join(str(row[-1]) for row in cursor.fetchall()))  # type: ignore[attr-defined]

    event.listen(database.caller_engine.sync_engine, "before_cursor_execute", ask)
