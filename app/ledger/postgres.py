"""Records a batch on PostgreSQL: one statement reads, one writes; rows are locked only after a conflict."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import asyncpg
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from app.core.drivers import RawPostgres
from app.ledger import rows
from app.ledger.decide import Decide, Plan
from app.ledger.models import Outcome, Report
from app.ledger.tables import deliveries, generations, transitions


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
        concerned = _concerned(reports)
        with _map_conflicts():
            if self._expects_new:
                plan = decide({}, {})
                known = await self._direct.fetch(WRITE_NEW, *_written(plan), *concerned)
                if not known:
                    return plan
            else:
                known = await self._direct.fetch(LOOK, *concerned)
            self._expects_new = not known
            plan = _plan(known, decide)
            await self._direct.fetch(WRITE, *_written(plan), len(plan.generations))
        return plan

    async def record_locked(self, reports: Sequence[Report], decide: Decide) -> Plan:
        """Like `record`, with the generations locked in the order of their ids, so that another conflict is unlikely.

        Raises `WriteConflict` only where another writer inserts one of them at the same time.
        """
        with _map_conflicts():
            async with self._direct.transaction() as connection:
                ids, event_ids = _concerned(reports)
                await connection.execute(LOCK, ids)
                known = await connection.fetch(LOOK, ids, event_ids)
                plan = _plan(known, decide)
                await connection.fetch(WRITE, *_written(plan), len(plan.generations))
        return plan


@contextmanager
def _map_conflicts() -> Iterator[None]:
    try:
        yield
    except (asyncpg.DivisionByZeroError, asyncpg.UniqueViolationError) as error:
        raise WriteConflict from error


def _concerned(reports: Sequence[Report]) -> tuple[list[str], list[str]]:
    ids = {report.claim.id for report in reports if report.claim is not None}
    return list(ids), [report.delivery.event_id for report in reports if report.delivery is not None]


def _plan(known: Iterable[Any], decide: Decide) -> Plan:
    generations, known_events = {}, {}
    for row in known:
        if row["known_event_id"] is None:
            generations[row["id"]] = rows.to_generation(row)
        else:
            known_events[row["known_event_id"]] = Outcome(row["known_outcome"])
    return decide(generations, known_events)


def _written(plan: Plan) -> tuple[str, str, str, bytes]:
    """Rows as JSON texts: with arrays the driver encodes each element, which takes five times as long.

    Rows are always in the order of their keys, so that two batches can't deadlock.
    """
    bodies, delivered = rows.bodies_apart(plan.deliveries[key] for key in sorted(plan.deliveries))
    generations = [rows.from_generation(plan.generations[key]) for key in sorted(plan.generations)]
    transitions = [rows.from_transition(transition) for transition in plan.transitions]
    return rows.dump_json(generations), rows.dump_json(delivered), rows.dump_json(transitions), bodies


# The statements of every batch, as constant text, so that PostgreSQL plans them once.


_TYPES = {
    f"{table.name}.{column.name}": column.type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]
    for table in (generations, deliveries, transitions)
    for column in table.c
}

_NO_GENERATION = ", ".join(f"NULL::{_TYPES[f'generations.{name}']}" for name in rows.GENERATION_COLUMNS)


def _look(*, ids: str = "$1", events: str = "$2") -> str:
    g = rows.GENERATION_COLUMNS
    return (
        f"SELECT {', '.join(g)}, NULL::text AS known_event_id, NULL::text AS known_outcome FROM generations "  # noqa: S608
        f"WHERE id = ANY({ids}::text[]) UNION ALL "
        f"SELECT {_NO_GENERATION}, event_id, outcome FROM deliveries WHERE event_id = ANY({events}::text[])"
    )


_COUNTED = "\n    ON CONFLICT (event_id) DO UPDATE SET attempts = deliveries.attempts + excluded.attempts"
_IF_NEW = " WHERE NOT EXISTS (SELECT FROM known)"


def _write() -> str:
    g, t = rows.GENERATION_COLUMNS, rows.TRANSITION_COLUMNS
    changed = ", ".join(f"{name} = excluded.{name}" for name in g if name not in ("id", "first_seen_at"))
    return f"""WITH written AS (
    {_insert(generations, g, "$1")}
    ON CONFLICT (id) DO UPDATE SET {changed} WHERE generations.revision = excluded.revision - 1
    RETURNING (xmax = 0) = (revision = 1) AS is_as_it_was
), {_delivered(_COUNTED)}, moved AS (
    {_insert(transitions, t, "$3")}
)
SELECT 1 / (count(*) FILTER (WHERE is_as_it_was) = $5::bigint)::int FROM written"""  # noqa: S608 - of columns of ours


def _write_new() -> str:
    # Without ON CONFLICT, which looks up every key twice: a seventh of PostgreSQL's time for recording. The last line
    # adds no row, but makes PostgreSQL insert generations first: concurrent batches then wait in the order of ids.
    return f"""WITH known AS MATERIALIZED (
    {_look(ids="$5", events="$6")}
), written AS (
    {_insert(generations, rows.GENERATION_COLUMNS, "$1")}{_IF_NEW}
    RETURNING 1
), {_delivered(_IF_NEW)}, moved AS (
    {_insert(transitions, rows.TRANSITION_COLUMNS, "$3")}{_IF_NEW}
)
SELECT * FROM known UNION ALL SELECT {_NO_GENERATION}, NULL, NULL FROM written HAVING count(*) < 0"""  # noqa: S608


def _delivered(ending: str) -> str:
    return f"delivered AS (\n    {_insert(deliveries, rows.DELIVERY_COLUMNS, '$2')}{ending}\n)"


def _insert(table: Table, columns: Sequence[str], parameter: str) -> str:
    return f"INSERT INTO {table.name} ({', '.join(columns)}) {_rows_from(table, columns, parameter)}"


def _rows_from(table: Table, columns: Sequence[str], parameter: str) -> str:
    values = [f"(row ->> {number})::{_TYPES[f'{table.name}.{name}']}" for number, name in enumerate(columns)]
    if table is generations:
        values[columns.index("revision")] += " + 1"  # counts writes, however many reports a batch holds
    if table is deliveries:
        values[rows.BODY] = f"substring($4::bytea, (row ->> {rows.BODY})::int, (row ->> {len(columns)})::int)"
    return f"SELECT {', '.join(values)} FROM jsonb_array_elements({parameter}::jsonb) AS row"  # noqa: S608


LOOK: Final = _look()
"""A row for each of the generations $1 and of the events $2 that is stored; for an event, its outcome."""

BY_ID: Final = f"SELECT {', '.join(rows.GENERATION_COLUMNS)} FROM generations WHERE id = ANY($1::text[])"  # noqa: S608

LOCK: Final = "SELECT FROM generations WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE"

WRITE: Final = _write()
"""The three writes, all or nothing: generations $1, deliveries $2 with their bodies in $4, transitions $3.

$5 is the number of generations. If one of them was changed, inserted or removed since it was read, the last line
divides by zero, which rolls everything back. Conflicts are found by the primary keys' indexes, never by a scan.
"""


WRITE_NEW: Final = _write_new()
"""The three writes if none of the generations $5 and events $6 is stored, returning no row; else the rows of `LOOK`.

Fails with a unique violation if another writer inserts one of them at the same time.
"""
