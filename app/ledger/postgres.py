"""Records a batch on PostgreSQL: one statement reads, one writes; rows are locked only after a conflict."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import asyncpg
from sqlalchemy import ColumnElement, Table
from sqlalchemy.dialects import postgresql

from app.core.drivers import RawPostgres
from app.core.errors import DatabaseUnavailable
from app.ledger import rows
from app.ledger.decide import Decide, KnownEvent, Plan, concerned, reused_ids
from app.ledger.models import Generation, Report
from app.ledger.tables import deliveries, generations, polls, transitions, usage_changes

Fetch = Callable[..., Awaitable[list[Any]]]


class WriteConflict(Exception):
    """Another writer changed a generation between our read and our write; nothing was written."""


class PostgresRecord:
    """Records batches by constant statements, directly through the driver.

    Every write of a generation increments its `revision`, and one statement writes all or nothing: only if each
    generation still has the revision that was read. This needs no locks, and one or two round trips instead of five.
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
        ids, event_ids = concerned(reports)
        with map_conflicts():
            if self._expects_new:
                plan = decide({}, {})
                new = _arguments(plan)
                known = await self._direct.fetch(write_new_statement(*new), *new.values(), ids, event_ids)
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
        ids, event_ids = concerned(reports)
        with map_conflicts():
            async with self._direct.transaction() as connection:
                await connection.execute(LOCK, ids)
                known = await connection.fetch(LOOK, ids, event_ids)
                return await self._write(connection.fetch, reports, decide, known)

    async def _write(self, fetch: Fetch, reports: Sequence[Report], decide: Decide, known: Sequence[Any]) -> Plan:
        generations, events = _parse(known)
        if reused := reused_ids(reports, events):
            events |= _parse(await fetch(LOOK, [], reused))[1]
        plan = decide(generations, events)
        if arguments := _arguments(plan):
            await fetch(write_statement(*arguments), *arguments.values())
        return plan


CONFLICTS: Final = (asyncpg.DivisionByZeroError, asyncpg.UniqueViolationError)
VALUE_ERRORS: Final = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
"""Those included, and all others for which a value may be at fault."""


@contextmanager
def map_conflicts(errors: tuple[type[Exception], ...] = CONFLICTS) -> Iterator[None]:
    """Raise `WriteConflict` for these errors of the database, and for a deadlock."""
    try:
        yield
    except errors as error:
        raise WriteConflict from error
    except DatabaseUnavailable as error:
        if isinstance(error.__cause__, asyncpg.DeadlockDetectedError):
            raise WriteConflict from error
        raise


def _parse(known: Iterable[Any]) -> tuple[dict[str, Generation], dict[str, KnownEvent]]:
    generations, events = {}, {}
    for row in known:
        if row["event_id"] is None:
            generations[row["id"]] = rows.to_generation(row)
        else:
            events[row["event_id"]] = rows.to_known_event(row)
    return generations, events


def _arguments(plan: Plan) -> dict[str, object]:
    """What is to be written, by the part that writes it: the arguments of `write_statement`.

    Rows are JSON texts: of arrays the driver encodes each element, in five times as long.
    """
    written = rows.written_rows(plan)
    closed, delivered = written.pop("closed"), written["delivered"]
    written["delivered"], bodies = rows.apart(delivered)
    parts: dict[str, object] = {name: rows.dump_json(values) for name, values in written.items() if values}
    return {
        **parts,
        **({"bodies": bodies} if delivered else {}),
        **({"closed": [generation_id for (generation_id,) in closed]} if closed else {}),
        **({"expected": len(written["changed"])} if written["changed"] else {}),
    }


# The statements of every batch, as constant text, so that PostgreSQL plans them once.


_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]


def _type(column: ColumnElement[Any]) -> str:
    return str(column.type.compile(_DIALECT))


_COMPILED: Final = rows.SELECT_GENERATIONS.compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True})
_GENERATIONS: Final = str(_COMPILED).replace("\n", "")
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
_LOCKED: Final = f"""
SELECT min(key) - {FEED_LOCK} FROM (
    SELECT (classid::bigint << 32) + objid::bigint AS key FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND next.position IS NOT NULL
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS held WHERE key BETWEEN {FEED_LOCK} AND {FEED_LOCK} + (1::bigint << 48)
"""  # noqa: S608 - of a constant

FEED_END: Final = (
    f"WITH next (position) AS MATERIALIZED ({_NEXT_POSITION}) SELECT least(position, ({_LOCKED})) AS position FROM next"  # noqa: S608
)
"""The position below which no row can be added. Read the rows in a later transaction, whose snapshot is newer.

The lowest lock is looked up for a row of `next`, and therefore after the next position is known.
"""

AHEAD: Final = f"ahead AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared({FEED_LOCK} + ({_NEXT_POSITION})))"
_IF_NEW: Final = " WHERE NOT EXISTS (SELECT FROM known)"
_CHANGES: Final = ", ".join(
    f"{name} = coalesce((row ->> {number})::{_type(generations.c[name])}, g.{name})"
    for number, name in enumerate(rows.CHANGED_COLUMNS, start=2)
)
_AGAIN: Final = " ON CONFLICT (generation_id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in rows.RESCHEDULED_COLUMNS
)


def _insert(table: Table, columns: Sequence[str], source: str) -> str:
    values = [f"(row ->> {number})::{_type(table.c[name])}" for number, name in enumerate(columns)]
    if table is deliveries:
        body = len(columns) - 1
        values[body] = f"substring({{bodies}}::bytea, (row ->> {body})::int, (row ->> {body + 1})::int)"
    read = f"SELECT {', '.join(values)} FROM {source} AS row{{if_new}}"  # noqa: S608
    return f"INSERT INTO {table.name} ({', '.join(columns)}) {read}"


_PARTS: Final = {
    "changed": (
        f"UPDATE generations AS g SET {_CHANGES}, revision = g.revision + 1 "  # noqa: S608
        "FROM jsonb_array_elements({changed}::jsonb) AS row "
        "WHERE g.id = row ->> 0 AND g.revision = (row ->> 1)::int RETURNING 1"
    ),
    "added": _insert(generations, rows.GENERATION_COLUMNS, "jsonb_array_elements({added}::jsonb)") + " RETURNING 1",
    "repeated": (
        "UPDATE deliveries AS d SET attempts = d.attempts + (row ->> 1)::int "
        "FROM jsonb_array_elements({repeated}::jsonb) AS row WHERE d.event_id = row ->> 0"
    ),
    "closed": "DELETE FROM polls WHERE generation_id = ANY({closed}::text[])",
    "opened": _insert(polls, rows.POLL_COLUMNS, "jsonb_array_elements({opened}::jsonb)") + "{again}",
    "delivered": _insert(deliveries, rows.DELIVERY_COLUMNS, "jsonb_array_elements({delivered}::jsonb)"),
    "moved": _insert(transitions, rows.TRANSITION_COLUMNS, "ahead, jsonb_array_elements({moved}::jsonb)"),
    "counted": _insert(usage_changes, rows.USAGE_COLUMNS, "jsonb_array_elements({counted}::jsonb)"),
}
"""What a statement may write; the arguments of the same names are those of `_arguments`."""


def _ctes(parts: Sequence[str], *, if_new: str = "", again: str = "") -> list[str]:
    places = {name: f"${number}" for number, name in enumerate(parts, start=1)}
    texts = {name: _PARTS[name].format(**places, if_new=if_new, again=again) for name in parts if name in _PARTS}
    return [*([AHEAD] if "moved" in parts else []), *(f"{name} AS (\n    {text}\n)" for name, text in texts.items())]


@cache
def write_statement(*parts: str) -> str:
    """All of these writes or none; `parts` names the arguments, in their order.

    If a generation was changed or removed since it was read, the last line divides by zero, which rolls everything
    back. It makes PostgreSQL write generations first: concurrent batches then wait in the order of ids. Conflicts are
    found by the primary keys' indexes, never by a scan.
    """
    last = "SELECT count(*) FROM added" if "added" in parts else "SELECT 1"
    if "changed" in parts:
        added = " UNION ALL SELECT false FROM added" if "added" in parts else ""
        last = (
            f"SELECT 1 / (count(*) FILTER (WHERE is_changed) = ${parts.index('expected') + 1}::bigint)::int "  # noqa: S608
            f"FROM (SELECT true AS is_changed FROM changed{added}) AS written"
        )
    return f"WITH {', '.join(_ctes(parts, again=_AGAIN))}\n{last}"


@cache
def write_new_statement(*parts: str) -> str:
    """The inserts of `parts`, if none of the generations and events of two more arguments is stored.

    Returns no row then, else those of `LOOK`. Fails with a unique violation if another writer inserts one of them at
    the same time.
    """
    known = _look(ids=f"${len(parts) + 1}", events=f"${len(parts) + 2}")
    # The last line adds no row, but makes PostgreSQL insert generations first.
    nothing = ", ".join(["NULL"] * (len(_READ) + len(_KNOWN_EVENT) + 1))
    added = f" UNION ALL SELECT {nothing} FROM added HAVING count(*) < 0" if "added" in parts else ""  # noqa: S608
    ctes = [f"known AS MATERIALIZED (\n    {known}\n)", *_ctes(parts, if_new=_IF_NEW)]
    return f"WITH {', '.join(ctes)}\nSELECT * FROM known{added}"


LOOK: Final = _look()
"""A row for each of the generations $1 and of the events $2 that is stored."""

BY_ID: Final = f"{_GENERATIONS} WHERE generations.id = ANY($1::text[])"

LOCK: Final = "SELECT FROM generations WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE"
