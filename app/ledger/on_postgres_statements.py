"""What is said to PostgreSQL for every batch, as text that never changes, so that it is planned once."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from app.ledger import rows
from app.ledger.tables import deliveries, generations, transitions

_TYPES = {
    f"{table.name}.{column.name}": column.type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]
    for table in (generations, deliveries, transitions)
    for column in table.c
}


def _look() -> str:
    g = rows.GENERATION_COLUMNS
    unknown = ", ".join(f"NULL::{_TYPES[f'generations.{name}']}" for name in g)
    return (
        f"SELECT {', '.join(g)}, NULL::text AS known_event_id, NULL::text AS known_outcome FROM generations "  # noqa: S608
        f"WHERE id = ANY($1::text[]) UNION ALL "
        f"SELECT {unknown}, event_id, outcome FROM deliveries WHERE event_id = ANY($2::text[])"
    )


def _write() -> str:
    g, d, t = rows.GENERATION_COLUMNS, rows.DELIVERY_COLUMNS, rows.TRANSITION_COLUMNS
    changed = ", ".join(f"{name} = excluded.{name}" for name in g if name not in ("id", "first_seen_at"))
    statement = f"""
WITH written AS (
    {_insert(generations, g, "$1")}
    ON CONFLICT (id) DO UPDATE SET {changed} WHERE generations.revision = excluded.revision - 1
    RETURNING (xmax = 0) = (revision = 1) AS is_as_it_was
), delivered AS (
    {_insert(deliveries, d, "$2")}
    ON CONFLICT (event_id) DO UPDATE SET attempts = deliveries.attempts + excluded.attempts
), moved AS (
    {_insert(transitions, t, "$3")}
)
SELECT 1 / (count(*) FILTER (WHERE is_as_it_was) = $5::bigint)::int FROM written
"""  # noqa: S608 - of column names of ours
    return statement.strip()


def _insert(table: Table, columns: Sequence[str], parameter: str) -> str:
    values = [f"(row ->> {number})::{_TYPES[f'{table.name}.{name}']}" for number, name in enumerate(columns)]
    if table is generations:
        values[columns.index("revision")] += " + 1"  # counts writes, however many reports a batch holds
    if table is deliveries:
        values[rows.BODY] = f"substring($4::bytea, (row ->> {rows.BODY})::int, (row ->> {len(columns)})::int)"
    found = f"SELECT {', '.join(values)} FROM jsonb_array_elements({parameter}::jsonb) AS row"  # noqa: S608
    return f"INSERT INTO {table.name} ({', '.join(columns)}) {found}"


LOOK: Final = _look()
"""The generations $1, and what became of the events $2: a row for each that is known."""

BY_ID: Final = f"SELECT {', '.join(rows.GENERATION_COLUMNS)} FROM generations WHERE id = ANY($1::text[])"  # noqa: S608

LOCK: Final = "SELECT FROM generations WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE"

WRITE: Final = _write()
"""The three writes, all or nothing: generations $1, deliveries $2 with their bodies in $4, transitions $3.

$5 is how many generations there are. Where one of them has been changed, inserted or removed since we looked, the
last line divides by zero, which takes everything back. The arbiters are the primary keys' indexes: this never scans.
"""
