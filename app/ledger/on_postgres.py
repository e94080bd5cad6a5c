"""Records a batch on PostgreSQL: look and lock, decide, write, in four short exchanges whatever the batch's size."""

from collections.abc import Sequence
from typing import Any

import asyncpg
import orjson
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from app.core.direct import Direct
from app.ledger import rows
from app.ledger.plan import Decide, Plan
from app.ledger.report import Report
from app.ledger.status import Outcome
from app.ledger.tables import deliveries, generations, transitions


class LostRace(Exception):
    """Somebody else was first to record a generation, between our look and our write."""


class PostgresRecord:
    """Speaks to the driver itself, in constant text."""

    def __init__(self, direct: Direct) -> None:
        self._direct = direct
        self._lock = _lock_generations()
        self._known = "SELECT event_id, outcome FROM deliveries WHERE event_id = ANY($1::text[])"
        self._write = _write_all()

    async def record(self, reports: Sequence[Report], decide: Decide) -> Plan:
        """One transaction. Raises `LostRace` and `DatabaseUnavailable`; nothing is written then."""
        ids = sorted({report.claim.id for report in reports if report.claim is not None})
        event_ids = [report.delivery.event_id for report in reports if report.delivery is not None]
        async with self._direct.transaction() as connection:
            found = await connection.fetch(self._lock, ids) if ids else ()
            known = await connection.fetch(self._known, event_ids) if event_ids else ()
            made = decide(
                {row["id"]: rows.to_generation(row) for row in found},
                {event_id: Outcome(outcome) for event_id, outcome in known},
            )
            try:
                written = await connection.fetchval(self._write, *_parameters(made))
            except asyncpg.UniqueViolationError as error:
                raise LostRace from error  # of a transition: the same step was recorded meanwhile
            if written != len(made.generations):
                raise LostRace
        return made


def _parameters(made: Plan) -> tuple[str, str, str, bytes]:
    """Rows as JSON texts: the driver looks at every single element of an array, which takes it five times as long."""
    bodies, delivered = rows.bodies_apart(made.deliveries[key] for key in sorted(made.deliveries))
    return (
        _json([rows.from_generation(made.generations[key]) for key in sorted(made.generations)]),
        _json(delivered),
        _json([rows.from_transition(transition) for transition in made.transitions]),
        bodies,
    )


def _json(written: Sequence[Sequence[Any]]) -> str:
    return orjson.dumps(written).decode()


def _lock_generations() -> str:
    # In id order, everywhere: two batches can wait for each other, but never in a circle.
    columns = ", ".join(rows.GENERATION_COLUMNS)
    return f"SELECT {columns} FROM generations WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE"  # noqa: S608


def _write_all() -> str:
    """The three writes, as one statement; it tells how many generations were written.

    The arbiters are the primary keys' indexes, so this never scans. `revision` tells a row that somebody else inserted
    since we looked: it is left alone, and the missing row makes `record` start again.
    """
    g, d, t = rows.GENERATION_COLUMNS, rows.DELIVERY_COLUMNS, rows.TRANSITION_COLUMNS
    changed = ", ".join(f"{name} = excluded.{name}" for name in g if name not in ("id", "first_seen_at"))
    statement = f"""
WITH written AS (
    {_insert(generations, g, "$1")}
    ON CONFLICT (id) DO UPDATE SET {changed} WHERE generations.revision < excluded.revision
    RETURNING 1
), delivered AS (
    {_insert(deliveries, d, "$2")}
    ON CONFLICT (event_id) DO UPDATE SET attempts = deliveries.attempts + excluded.attempts
), moved AS (
    {_insert(transitions, t, "$3")}
)
SELECT count(*) FROM written
"""  # noqa: S608 - of column names of ours
    return statement.strip()


def _insert(table: Table, columns: Sequence[str], parameter: str) -> str:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    types = [table.c[name].type.compile(dialect) for name in columns]
    values = [f"(row ->> {number})::{kind}" for number, kind in enumerate(types)]
    if table is deliveries:
        values[rows.BODY] = f"substring($4::bytea, (row ->> {rows.BODY})::int, (row ->> {len(columns)})::int)"
    found = f"SELECT {', '.join(values)} FROM jsonb_array_elements({parameter}::jsonb) AS row"  # noqa: S608
    return f"INSERT INTO {table.name} ({', '.join(columns)}) {found}"
