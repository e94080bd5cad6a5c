"""Records a batch on SQLite: look, decide, write, in one call to the writer's thread and one statement per table."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
from sqlalchemy import Table

from app.core.direct_sqlite import DirectSqlite
from app.core.schema import Moment
from app.ledger import rows
from app.ledger.plan import Decide, Plan
from app.ledger.report import Report
from app.ledger.state import Generation
from app.ledger.status import Outcome
from app.ledger.tables import deliveries, generations, transitions

# Every step of a statement hands the interpreter to the other threads, and it takes milliseconds to get it back from
# a busy loop: one step per table and batch, with the rows as one JSON text, instead of one step per row.


class SqliteRecord:
    """The lock is the transaction: SQLite has one writer at a time."""

    def __init__(self, direct: DirectSqlite) -> None:
        self._direct = direct
        g, d, t = rows.GENERATION_COLUMNS, rows.DELIVERY_COLUMNS, rows.TRANSITION_COLUMNS
        changed = ", ".join(f"{name} = excluded.{name}" for name in g if name not in ("id", "first_seen_at"))
        self._find = f"SELECT {', '.join(g)} FROM generations WHERE {_AMONG.format('id')}"  # noqa: S608
        self._known = f"SELECT event_id, outcome FROM deliveries WHERE {_AMONG.format('event_id')}"  # noqa: S608
        self._write_generations = f"{_insert(generations, g)} WHERE true ON CONFLICT (id) DO UPDATE SET {changed}"
        self._write_deliveries = (
            f"{_insert(deliveries, d)} WHERE true "
            "ON CONFLICT (event_id) DO UPDATE SET attempts = deliveries.attempts + excluded.attempts"
        )
        self._write_transitions = _insert(transitions, t)

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
        if made.generations:
            written = _json([rows.from_generation(item) for item in made.generations.values()])
            connection.execute(self._write_generations, {"rows": written})
        if made.deliveries:
            bodies, delivered = rows.bodies_apart(made.deliveries.values())
            connection.execute(self._write_deliveries, {"rows": _json(delivered), "bodies": bodies})
        if made.transitions:
            moved = _json([rows.from_transition(transition) for transition in made.transitions])
            connection.execute(self._write_transitions, {"rows": moved})


_AMONG = "{} IN (SELECT value FROM json_each(?))"
_MOMENTS = tuple(column.name for column in generations.c if isinstance(column.type, Moment))


def _insert(table: Table, columns: Sequence[str]) -> str:
    values = [f"value ->> {number}" for number in range(len(columns))]
    if table is generations:
        values[columns.index("revision")] += " + 1"  # counts writes, however many reports a batch holds
    if table is deliveries:
        values[rows.BODY] = f"substr(:bodies, value ->> {rows.BODY}, value ->> {len(columns)})"
    return f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT {', '.join(values)} FROM json_each(:rows)"  # noqa: S608


def _to_generation(row: sqlite3.Row) -> Generation:
    known: dict[str, Any] = dict(row)
    for name in _MOMENTS:
        if known[name] is not None:
            known[name] = datetime.fromisoformat(known[name]).replace(tzinfo=UTC)
    return rows.to_generation(known)


def _json(value: object) -> str:
    return orjson.dumps(value, default=_stamp, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()


def _stamp(value: object) -> str:
    """A moment as SQLAlchemy writes it: sortable text, in UTC. Refuses what isn't one, and naive ones."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        message = "a time to be stored must be aware"
        raise TypeError(message)
    return value.astimezone(UTC).isoformat(" ", "microseconds")[:26]
