"""Records a batch on PostgreSQL: one statement reads, one writes; rows are locked only after a conflict."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import asyncpg
from sqlalchemy import ColumnElement, Select, Table
from sqlalchemy.dialects import postgresql

from app.core.drivers import RawPostgres
from app.core.errors import DatabaseUnavailable
from app.ledger import rows
from app.ledger.decide import Decide, KnownEvent, Plan, reused_ids
from app.ledger.models import Generation, Report
from app.ledger.tables import deliveries, generations, polls, transitions, usage_changes

Fetch = Callable[..., Awaitable[list[Any]]]


class WriteConflict(Exception):
    """Another writer changed a generation between our read and our write; nothing was written."""


class PostgresRecord:
    """Records batches by constant statements, directly through the driver.

    Every write of a generation increments its `revision`, and `WRITE` writes all or nothing: only if each generation
    still has the revision that was read. This needs no locks, and one or two round trips instead of five.
    """

    def __init__(self, direct: RawPostgres) -> None:
        self._direct = direct
        self._expects_new = True
        """None of the generations and events of the last batch was stored before."""

    async def record(self, reports: Sequence[Report], decide: Decide) -> Plan:
        """Record `reports` in one transaction, and return what was written.

        If everything is new, as where other programs create the generations, one round trip is enough.
        Raises `WriteConflict` and `DatabaseUnavailable`; nothing is written then.
        """
        ids, event_ids = _concerned(reports)
        with _map_conflicts():
            if self._expects_new:
                plan = decide({}, {})
                known = await self._direct.fetch(WRITE_NEW, *_arguments(plan)[:_INSERTED], ids, event_ids)
                if not known:
                    return plan
            else:
                known = await self._direct.fetch(LOOK, ids, event_ids)
            self._expects_new = not known
            return await self._write(self._direct.fetch, reports, decide, known)

    async def record_locked(self, reports: Sequence[Report], decide: Decide) -> Plan:
        """Like `record`, with the generations locked in the order of their ids, so that another conflict is unlikely.

        Raises `WriteConflict` only where another writer inserts one of them at the same time.
        """
        ids, event_ids = _concerned(reports)
        with _map_conflicts():
            async with self._direct.transaction() as connection:
                await connection.execute(LOCK, ids)
                known = await connection.fetch(LOOK, ids, event_ids)
                return await self._write(connection.fetch, reports, decide, known)

    async def _write(self, fetch: Fetch, reports: Sequence[Report], decide: Decide, known: Sequence[Any]) -> Plan:
        generations, events = _parse(known)
        if reused := reused_ids(reports, events):
            events |= _parse(await fetch(LOOK, [], reused))[1]
        plan = decide(generations, events)
        await fetch(WRITE, *_arguments(plan))
        return plan


@contextmanager
def _map_conflicts() -> Iterator[None]:
    try:
        yield
    except (asyncpg.DivisionByZeroError, asyncpg.UniqueViolationError) as error:
        raise WriteConflict from error
    except DatabaseUnavailable as error:
        if isinstance(error.__cause__, asyncpg.DeadlockDetectedError):
            raise WriteConflict from error
        raise


def _concerned(reports: Sequence[Report]) -> tuple[list[str], list[str]]:
    ids = {report.claim.id for report in reports if report.claim is not None}
    return list(ids), [report.delivery.event_id for report in reports if report.delivery is not None]


def _parse(known: Iterable[Any]) -> tuple[dict[str, Generation], dict[str, KnownEvent]]:
    generations, events = {}, {}
    for row in known:
        if row["event_id"] is None:
            generations[row["id"]] = rows.to_generation(row)
        else:
            events[row["event_id"]] = rows.to_known_event(row)
    return generations, events


def _arguments(plan: Plan) -> tuple[object, ...]:
    """Those of `WRITE`. Rows are JSON texts: of arrays the driver encodes each element, in five times as long."""
    written = rows.written_rows(plan)
    delivered, bodies = rows.apart(written.delivered)
    inserted = (written.inserted, written.opened, delivered, written.moved, written.usage)
    changed = (rows.dump_json(written.updated), rows.dump_json(written.repeated))
    return (*map(rows.dump_json, inserted), bodies, *changed, written.closed, len(written.updated))


_INSERTED: Final = 6
"""The first arguments of `WRITE` are those of `WRITE_NEW`."""

# The statements of every batch, as constant text, so that PostgreSQL plans them once.


_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]


def _type(column: ColumnElement[Any]) -> str:
    return str(column.type.compile(_DIALECT))


def _sql(statement: Select[Any]) -> str:
    text = str(statement.compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True}))
    return text.replace("\n", "")


_GENERATIONS: Final = _sql(rows.SELECT_GENERATIONS)
_KNOWN_EVENT: Final = ("event_id", "outcome", "event_type", "generation_id")


def _look(*, ids: str = "$1", events: str = "$2") -> str:
    read, _, source = _GENERATIONS.partition(" FROM ")
    no_event = ", ".join(f"NULL::text AS {name}" for name in _KNOWN_EVENT)
    no_generation = ", ".join(f"NULL::{_type(column)}" for column in _READ)
    return (
        f"{read}, {no_event}, NULL::bytea AS body FROM {source} WHERE generations.id = ANY({ids}::text[]) UNION ALL "  # noqa: S608
        f"SELECT {no_generation}, {', '.join(_KNOWN_EVENT)}, "
        f"CASE WHEN event_type IS NULL AND generation_id IS NULL THEN body END "
        f"FROM deliveries WHERE event_id = ANY({events}::text[])"
    )


_READ: Final = tuple(rows.SELECT_GENERATIONS.selected_columns)

# Positions in the feed are handed out before the commit, so a reader that went by them could pass a row that is
# committed later. Each batch therefore locks the next position, shared and until its end, before it takes any. A reader
# first asks the sequence for the next position, then `pg_locks` for the lowest of these locks, and then reads the rows
# below both: nobody can add another row there. Unlike the ids of transactions, positions survive a dump, and only
# writers of this table hold a reader up.
FEED_LOCK: Final = 0x52CB << 48
"""Added to the position: the key of the advisory lock."""

_NEXT_POSITION: Final = "SELECT last_value + is_called::int FROM transitions_feed_position_seq"
_AHEAD: Final = f"ahead AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared({FEED_LOCK} + ({_NEXT_POSITION})))"
_IF_NEW: Final = " WHERE NOT EXISTS (SELECT FROM known)"


def _insert(table: Table, columns: Sequence[str], parameter: str, *, source: str = "") -> str:
    values = [f"(row ->> {number})::{_type(table.c[name])}" for number, name in enumerate(columns)]
    if table is deliveries:
        place = len(columns) - 1
        values[place] = f"substring($6::bytea, (row ->> {place})::int, (row ->> {place + 1})::int)"
    return (
        f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT {', '.join(values)} "  # noqa: S608
        f"FROM {source}jsonb_array_elements({parameter}::jsonb) AS row"
    )


def _inserts(ending: str = "", *, scheduled: str = "") -> str:
    """The inserts that both statements have; `ending` follows each."""
    return f"""{_AHEAD}, added AS (
    {_insert(generations, rows.GENERATION_COLUMNS, "$1")}{ending} RETURNING 1
), opened AS (
    {_insert(polls, rows.POLL_COLUMNS, "$2")}{ending}{scheduled}
), delivered AS (
    {_insert(deliveries, rows.DELIVERY_COLUMNS, "$3")}{ending}
), moved AS (
    {_insert(transitions, rows.TRANSITION_COLUMNS, "$4", source="ahead, ")}{ending}
), counted AS (
    {_insert(usage_changes, rows.USAGE_COLUMNS, "$5")}{ending}
)"""


def _write() -> str:
    changed = ", ".join(
        f"{name} = coalesce((row ->> {number})::{_type(generations.c[name])}, g.{name})"
        for number, name in enumerate(rows.CHANGED_COLUMNS, start=2)
    )
    again = ", ".join(f"{name} = excluded.{name}" for name in rows.RESCHEDULED_COLUMNS)
    scheduled = f"\n    ON CONFLICT (generation_id) DO UPDATE SET {again}"
    return f"""WITH changed AS (
    UPDATE generations AS g SET {changed}, revision = g.revision + 1
    FROM jsonb_array_elements($7::jsonb) AS row WHERE g.id = row ->> 0 AND g.revision = (row ->> 1)::int RETURNING 1
), repeated AS (
    UPDATE deliveries AS d SET attempts = d.attempts + (row ->> 1)::int
    FROM jsonb_array_elements($8::jsonb) AS row WHERE d.event_id = row ->> 0
), closed AS (
    DELETE FROM polls WHERE generation_id = ANY($9::text[])
), {_inserts(scheduled=scheduled)}
SELECT 1 / (count(*) FILTER (WHERE is_changed) = $10::bigint)::int
FROM (SELECT true AS is_changed FROM changed UNION ALL SELECT false FROM added) AS written"""  # noqa: S608


def _write_new() -> str:
    # The last line adds no row, but makes PostgreSQL insert generations first: concurrent batches then wait in the
    # order of ids.
    nothing = ", ".join(["NULL"] * (len(_READ) + len(_KNOWN_EVENT) + 1))
    return f"""WITH known AS MATERIALIZED (
    {_look(ids="$7", events="$8")}
), {_inserts(_IF_NEW)}
SELECT * FROM known UNION ALL SELECT {nothing} FROM added HAVING count(*) < 0"""  # noqa: S608


LOOK: Final = _look()
"""A row for each of the generations $1 and of the events $2 that is stored."""

BY_ID: Final = f"{_GENERATIONS} WHERE generations.id = ANY($1::text[])"

LOCK: Final = "SELECT FROM generations WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE"

WRITE: Final = _write()
"""All writes or none: rows to insert into generations $1, polls $2, deliveries $3 with their bodies in $6,
transitions $4 and usage_changes $5; changed generations $7, repeated deliveries $8 and settled ids $9.

$10 is the number of changed generations. If one of them was changed or removed since it was read, the last line divides
by zero, which rolls everything back. Conflicts are found by the primary keys' indexes, never by a scan.
"""

WRITE_NEW: Final = _write_new()
"""The inserts of `WRITE` if none of the generations $7 and events $8 is stored, returning no row; else the rows of
`LOOK`.

Fails with a unique violation if another writer inserts one of them at the same time.
"""
