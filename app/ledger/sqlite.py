"""Records a batch on SQLite: reads, decides and writes in one call to the writer's thread, few statements per table."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, Final

from sqlalchemy import Table

from app.core.database import UtcDateTime
from app.core.drivers import RawSqlite
from app.ledger import rows
from app.ledger.decide import Decide, Plan
from app.ledger.models import Generation, Outcome, Report
from app.ledger.tables import deliveries, generations, transitions


class SqliteRecord:
    """Records batches without row locks: SQLite has one writer at a time."""

    def __init__(self, direct: RawSqlite) -> None:
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
        """Record `reports` in one transaction, and return what was written. Raises `DatabaseUnavailable`."""
        return await self._direct.transaction(partial(self._record, reports=reports, decide=decide))

    record_locked = record
    """The same: no other writer can interfere."""

    def _record(self, connection: sqlite3.Connection, *, reports: Sequence[Report], decide: Decide) -> Plan:
        ids = {report.claim.id for report in reports if report.claim is not None}
        event_ids = {report.delivery.event_id for report in reports if report.delivery is not None}
        stored = connection.execute(self._find, (rows.dump_json(list(ids)),)).fetchall()
        known = connection.execute(self._known, (rows.dump_json(list(event_ids)),)).fetchall()
        plan = decide(
            {row["id"]: _to_generation(row) for row in stored},
            {event_id: Outcome(outcome) for event_id, outcome in known},
        )
        self._write(connection, plan)
        return plan

    def _write(self, connection: sqlite3.Connection, plan: Plan) -> None:
        self._generations.write(connection, [rows.from_generation(item) for item in plan.generations.values()])
        self._deliveries.write(connection, [rows.from_delivery(item) for item in plan.deliveries.values()])
        self._transitions.write(connection, [rows.from_transition(item) for item in plan.transitions])


_AMONG = "{} IN (SELECT value FROM json_each(?))"
_TIMES = tuple(column.name for column in generations.c if isinstance(column.type, UtcDateTime))


def _to_generation(row: sqlite3.Row) -> Generation:
    known: dict[str, Any] = dict(row)
    for name in _TIMES:
        if known[name] is not None:
            known[name] = datetime.fromisoformat(known[name]).replace(tzinfo=UTC)
    return rows.to_generation(known)


_LARGEST: Final = 128
"""Rows of one statement: 3,200 values of at most 32,766 (SQLite's default limit)."""
_WORDS: Final = frozenset({"status", "tracking", "settled_by", "from_status", "to_status", "source", "outcome"})
"""Columns with enum members: binding one takes the driver three times as long as binding its text."""


# Every step of a statement releases the interpreter lock, and a busy event loop returns it late: therefore one step
# writes many rows.


class Rows:
    """Inserts any number of rows by few statements, which are for 128, 64, 32 … 1 rows and stay prepared.

    Stores values as SQLAlchemy would. Binding a value takes half the time of reading it out of JSON in SQLite.
    """

    def __init__(self, table: Table, columns: Sequence[str], on_conflict: str = "") -> None:
        places = ["?"] * len(columns)
        if table is generations:
            places[columns.index("revision")] = "? + 1"  # counts writes, however many reports a batch holds
        row = f"({', '.join(places)})"
        self._times = tuple(n for n, name in enumerate(columns) if isinstance(table.c[name].type, UtcDateTime))
        self._words = tuple(n for n, name in enumerate(columns) if name in _WORDS)
        self._statements: list[tuple[int, str]] = []
        size = _LARGEST
        while size:
            values = ", ".join([row] * size)
            text = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES {values} {on_conflict}"  # noqa: S608
            self._statements.append((size, text))
            size //= 2

    def write(self, connection: sqlite3.Connection, written: Sequence[Sequence[Any]]) -> None:
        """Insert rows, each with its values in the order of the columns. Raises `sqlite3.Error`."""
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
            for place in self._times:
                time = values[at + place]
                if time is not None:
                    values[at + place] = stamp(time)
            for place in self._words:
                word = values[at + place]
                if word is not None:
                    values[at + place] = str.__str__(word)
        return values


@lru_cache(256)  # the many rows of a batch share few times
def stamp(time: datetime) -> str:
    """A time as text in UTC that sorts by time, as SQLAlchemy writes it. Raises `TypeError` for a naive time."""
    if time.tzinfo is not UTC:
        if time.tzinfo is None:
            message = "a time to be stored must be aware"
            raise TypeError(message)
        time = time.astimezone(UTC)
    return time.isoformat(" ", "microseconds")[:26]
