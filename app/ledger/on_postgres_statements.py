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
    # Without ON CONFLICT, which tries every key twice: a seventh of all that recording costs PostgreSQL. The last line
    # adds no row, but what it reads is written before all else: batches meet at a generation, in the order of ids.
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
    return f"INSERT INTO {table.name} ({', '.join(columns)}) {_found(table, columns, parameter)}"


def _found(table: Table, columns: Sequence[str], parameter: str) -> str:
    values = [f"(row ->> {number})::{_TYPES[f'{table.name}.{name}']}" for number, name in enumerate(columns)]
    if table is generations:
        values[columns.index("revision")] += " + 1"  # counts writes, however many reports a batch holds
    if table is deliveries:
        values[rows.BODY] = f"substring($4::bytea, (row ->> {rows.BODY})::int, (row ->> {len(columns)})::int)"
    return f"SELECT {', '.join(values)} FROM jsonb_array_elements({parameter}::jsonb) AS row"  # noqa: S608


LOOK: Final = _look()
"""The generations $1, and what became of the events $2: a row for each that is known."""

BY_ID: Final = f"SELECT {', '.join(rows.GENERATION_COLUMNS)} FROM generations WHERE id = ANY($1::text[])"  # noqa: S608

LOCK: Final = "SELECT FROM generations WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE"

WRITE: Final = _write()
"""The three writes, all or nothing: generations $1, deliveries $2 with their bodies in $4, transitions $3.

$5 is how many generations there are. Where one of them has been changed, inserted or removed since we looked, the
last line divides by zero, which takes everything back. The arbiters are the primary keys' indexes: this never scans.
"""


WRITE_NEW: Final = _write_new()
"""The three writes where none of the generations $5 and events $6 is known, and no row then; else what `LOOK` finds.

Raises a unique violation where one of them is written by somebody else at the same time.
"""
