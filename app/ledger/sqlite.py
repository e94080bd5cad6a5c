"""Records a batch on SQLite: reads, decides and writes in one call to the writer's thread, few statements per table."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Table
from sqlalchemy.dialects.sqlite import dialect

from app.core.database import UtcDateTime
from app.core.sqlite import RawSqlite
from app.ledger import rows
from app.ledger.decide import Decide, KnownEvent, Plan, concerned, reused_ids
from app.ledger.models import Generation, Outcome, Report, Source, Status, Tracking
from app.ledger.tables import deliveries, generations, polls, transitions, usage_changes


class SqliteRecord:
    """Records batches without row locks: SQLite has one writer at a time."""

    def __init__(self, direct: RawSqlite) -> None:
        self._direct = direct

    async def record(self, reports: Sequence[Report], decide: Decide) -> Plan:
        """Record `reports` in one transaction, and return what was written. Raises `DatabaseUnavailable`."""
        return await self._direct.transaction(partial(self._record, reports=reports, decide=decide))

    record_locked = record
    """The same: no other writer can interfere."""

    def _record(self, connection: sqlite3.Connection, *, reports: Sequence[Report], decide: Decide) -> Plan:
        ids, event_ids = concerned(reports)
        stored = connection.execute(_FIND, (rows.dump_json(ids),)).fetchall()
        events = _events(connection, event_ids)
        if reused := reused_ids(reports, events):
            events |= _events(connection, reused)
        plan = decide({row["id"]: _to_generation(row) for row in stored}, events)
        written = rows.written_rows(plan)
        # SQLite writes into every index that has a column which the statement names, whether its value changes or not.
        unindexed = [row for row in written["changed"] if len(row) <= _UNINDEXED]
        written["changed"] = [row for row in written["changed"] if len(row) > _UNINDEXED]
        for part, values in {**written, "unindexed": unindexed}.items():
            _PARTS[part].write(connection, values)
        return plan


def _events(connection: sqlite3.Connection, event_ids: Sequence[str]) -> dict[str, KnownEvent]:
    stored = connection.execute(_EVENTS, (rows.dump_json(event_ids),))
    return {row["event_id"]: rows.to_known_event(row) for row in stored}


def _to_generation(row: sqlite3.Row) -> Generation:
    values = list(row)
    for place in _TIMES:
        if values[place] is not None:
            values[place] = datetime.fromisoformat(f"{values[place]}+00:00")
    return rows.parse_generation(values)


_SELECTED: Final = rows.SELECT_GENERATIONS.selected_columns
_TIMES: Final = tuple(place for place, it in enumerate(_SELECTED) if isinstance(it.type, UtcDateTime))
_GENERATIONS: Final = rows.SELECT_GENERATIONS.compile(dialect=dialect(), compile_kwargs={"literal_binds": True})
_FIND: Final = f"{_GENERATIONS} WHERE generations.id IN (SELECT value FROM json_each(?))"  # noqa: S608 - text of ours
_EVENTS: Final = """
SELECT event_id, outcome, event_type, generation_id,
    CASE WHEN event_type IS NULL AND generation_id IS NULL THEN body END AS body
FROM deliveries WHERE event_id IN (SELECT value FROM json_each(?))
"""

_LARGEST: Final = 128
"""Rows of one statement: 2,600 values of at most 32,766 (SQLite's default limit)."""


# Every step of a statement releases the interpreter lock, and a busy event loop returns it late: therefore one step
# writes many rows. An error rolls back the whole transaction (OR ROLLBACK): to undo only the statement, SQLite would
# first copy each page that it changes, of some batches to a temporary file.


class Rows:
    """A statement for any number of rows: prepared for 128, 64, 32 … 1 of them, written as SQLAlchemy would."""

    def __init__(self, columns: int, template: str) -> None:
        self._columns = columns
        row = f"({', '.join('?' * columns)})"
        sizes = [_LARGEST >> shift for shift in range(_LARGEST.bit_length())]
        self._statements = [(size, template.format(values=f"VALUES {', '.join([row] * size)}")) for size in sizes]

    def write(self, connection: sqlite3.Connection, written: Sequence[rows.Values]) -> None:
        """Write rows; a row may have fewer values than columns, and None is bound for the rest.

        Raises `sqlite3.Error`.
        """
        begin, left = 0, len(written)
        for size, statement in self._statements:
            while left >= size:
                values: list[Any] = []
                for row in written[begin : begin + size]:
                    values.extend([_ADAPTERS[type(it)](it) if type(it) in _ADAPTERS else it for it in row])
                    values.extend([None] * (self._columns - len(row)))
                connection.execute(statement, values)
                begin, left = begin + size, left - size


@lru_cache(256)  # the many rows of a batch share few times
def stamp(time: datetime) -> str:
    """A time as text in UTC that sorts by time, as SQLAlchemy writes it. Raises `TypeError` for a naive time."""
    if time.tzinfo is not UTC:
        if time.tzinfo is None:
            message = "a time to be stored must be aware"
            raise TypeError(message)
        time = time.astimezone(UTC)
    return time.isoformat(" ", "microseconds")[:26]


# Binding a member of an enumeration takes the driver three times as long as binding its text.
_ADAPTERS: Final[Mapping[type, Callable[[Any], object]]] = {
    datetime: stamp,
    **dict.fromkeys((Outcome, Source, Status, Tracking), attrgetter("_value_")),
}
"""Turns a value of this type into one that the driver takes as it is."""


def _insert(table: Table, columns: Sequence[str], ending: str = "") -> Rows:
    text = f"INSERT OR ROLLBACK INTO {table.name} ({', '.join(columns)}) {{values}} {ending}"
    return Rows(len(columns), text)


def _update(table: Table, key: str, columns: Sequence[str], changes: str) -> Rows:
    names = (key, *columns)
    new = f"WITH new ({', '.join(names)}) AS ({{values}})"
    update = f"UPDATE OR ROLLBACK {table.name} SET {changes} FROM new WHERE {table.name}.{key} = new.{key}"  # noqa: S608
    return Rows(len(names), f"{new} {update}")


def _update_generations(columns: Sequence[str]) -> Rows:
    changes = ", ".join(f"{name} = coalesce(new.{name}, generations.{name})" for name in columns)
    return _update(generations, "id", ("revision", *columns), f"{changes}, revision = new.revision + 1")


_AGAIN: Final = ", ".join(f"{name} = excluded.{name}" for name in rows.RESCHEDULED_COLUMNS)

_UNINDEXED: Final = 2 + len(rows.UNINDEXED_COLUMNS)
_PARTS: Final = {
    "unindexed": _update_generations(rows.UNINDEXED_COLUMNS),
    "changed": _update_generations(rows.CHANGED_COLUMNS),
    "added": _insert(generations, rows.GENERATION_COLUMNS),
    "repeated": _update(deliveries, "event_id", ("attempts",), "attempts = deliveries.attempts + new.attempts"),
    "opened": _insert(polls, rows.POLL_COLUMNS, f"ON CONFLICT (generation_id) DO UPDATE SET {_AGAIN}"),
    "closed": Rows(1, "DELETE FROM polls WHERE generation_id IN ({values})"),
    "delivered": _insert(deliveries, rows.DELIVERY_COLUMNS),
    "moved": _insert(transitions, rows.TRANSITION_COLUMNS),
    "counted": _insert(usage_changes, rows.USAGE_COLUMNS),
}
"""What writes each part of `rows.written_rows`."""
