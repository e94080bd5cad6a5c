"""Records a batch on SQLite: look, decide, write, in one call to the writer's thread and a few statements per table."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson

from app.core.database import Moment
from app.core.drivers import DirectSqlite
from app.ledger import rows
from app.ledger.plan import Decide, Plan
from app.ledger.report import Report
from app.ledger.sqlite_rows import Rows
from app.ledger.state import Generation
from app.ledger.status import Outcome
from app.ledger.tables import deliveries, generations, transitions

# Every step of a statement hands the interpreter to the other threads, and it takes a while to get it back from a busy
# loop: so many rows are written by one step.


class SqliteRecord:
    """The lock is the transaction: SQLite has one writer at a time."""

    def __init__(self, direct: DirectSqlite) -> None:
        self._direct = direct
        g = rows.GENERATION_COLUMNS
        self._find = f"SELECT {', '.join(g)} FROM generations WHERE {_AMONG.format('id')}"  # noqa: S608
        self._known = f"SELECT event_id, outcome FROM deliveries WHERE {_AMONG.format('event_id')}"  # noqa: S608
        changed = ", ".join(f"{name} = excluded.{name}" for name in g if name not in ("id", "first_seen_at"))
        self._generations = Rows(generations, g, f"ON CONFLICT (id) DO UPDATE SET {changed}")
        one_more = "ON CONFLICT (event_id) DO UPDATE SET attempts = deliveries.attempts + excluded.attempts"
        self._deliveries = Rows(deliveries, rows.DELIVERY_COLUMNS, one_more)
        self._transitions = Rows(transitions, rows.TRANSITION_COLUMNS)

    async def record(self, reports: Sequence[Report], decide: Decide) -> Plan:
        """One transaction. Raises `DatabaseUnavailable`; nothing is written then."""
        return await self._direct.transaction(partial(self._record, reports=reports, decide=decide))

    record_locked = record
    """Nobody else can be faster here."""

    def _record(self, connection: sqlite3.Connection, *, reports: Sequence[Report], decide: Decide) -> Plan:
        ids = {report.claim.id for report in reports if report.claim is not None}
        event_ids = {report.delivery.event_id for report in reports if report.delivery is not None}
        found = connection.execute(self._find, (_json(list(ids)),)).fetchall()
        known = connection.execute(self._known, (_json(list(event_ids)),)).fetchall()
        made = decide(
            {row["id"]: _to_generation(row) for row in found},
            {event_id: Outcome(outcome) for event_id, outcome in known},
        )
        self._write(connection, made)
        return made

    def _write(self, connection: sqlite3.Connection, made: Plan) -> None:
        self._generations.write(connection, [rows.from_generation(item) for item in made.generations.values()])
        self._deliveries.write(connection, [rows.from_delivery(item) for item in made.deliveries.values()])
        self._transitions.write(connection, [rows.from_transition(item) for item in made.transitions])


_AMONG = "{} IN (SELECT value FROM json_each(?))"
_MOMENTS = tuple(column.name for column in generations.c if isinstance(column.type, Moment))


def _to_generation(row: sqlite3.Row) -> Generation:
    known: dict[str, Any] = dict(row)
    for name in _MOMENTS:
        if known[name] is not None:
            known[name] = datetime.fromisoformat(known[name]).replace(tzinfo=UTC)
    return rows.to_generation(known)


def _json(ids: list[str]) -> str:
    return orjson.dumps(ids).decode()
