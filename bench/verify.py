"""What was answered 200 is in the database exactly once, or the run is void."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson

from bench.events import Events
from bench.load import Load
from bench.world import on_postgres

_SETTLED_ONCE = """
SELECT count(*) FROM {wanted}
JOIN deliveries AS d ON d.event_id = wanted.event_id AND d.outcome = 'applied' AND d.attempts = wanted.attempts
JOIN generations AS g ON g.id = wanted.generation_id AND g.settled_at IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM polls WHERE generation_id = g.id)
WHERE (SELECT count(*) FROM transitions AS t WHERE t.generation_id = wanted.generation_id) = wanted.transitions
  AND NOT EXISTS (
    SELECT 1 FROM deliveries AS o WHERE o.generation_id = wanted.generation_id AND o.outcome <> 'applied')
"""
_COLUMNS = "event_id, generation_id, attempts, transitions"
_ON_POSTGRES = _SETTLED_ONCE.format(
    wanted=f"unnest($1::text[], $2::text[], $3::int[], $4::int[]) AS wanted ({_COLUMNS})"
)
_VALUES = ", ".join(f"value ->> {number} AS {name}" for number, name in enumerate(_COLUMNS.split(", ")))
_ON_SQLITE = _SETTLED_ONCE.format(wanted=f"(SELECT {_VALUES} FROM json_each(?)) AS wanted")  # noqa: S608


class Void(Exception):
    """Something was answered 200 and is not there exactly once: no figure of this run counts."""


def verify(url: str, events: Events, load: Load) -> None:
    """Raises `Void`, also where an answer never came or was neither 2xx nor 503."""
    attempts = Counter(events.event_ids[place] for place in load.accepted)
    wanted = {
        events.event_ids[place]: (events.generation_ids[place], events.transitions[place]) for place in load.accepted
    }
    rows = [(event_id, it, attempts[event_id], transitions) for event_id, (it, transitions) in wanted.items()]
    recorded = _count(url, rows)
    if recorded != len(rows):
        raise Void(f"{len(rows)} were answered 200, {recorded} of them are there exactly once")
    odd = {status: count for status, count in load.statuses.items() if status not in (200, 204, 503)}
    if odd or load.lost:
        raise Void(f"answers other than 2xx and 503: {odd}, never answered: {load.lost}")


def _count(url: str, rows: Sequence[tuple[Any, ...]]) -> int:
    if not url.startswith("sqlite"):
        return int(on_postgres(url, lambda opened: _count_on_postgres(opened, rows)))
    connection = sqlite3.connect(url.partition("///")[2])
    try:
        return int(connection.execute(_ON_SQLITE, (orjson.dumps(rows).decode(),)).fetchone()[0])
    finally:
        connection.close()


async def _count_on_postgres(connection: Any, rows: Sequence[tuple[Any, ...]]) -> int:  # noqa: ANN401
    # What was just written has no statistics yet: without this, each of the rows would be looked for in all the others.
    await connection.execute("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off")
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
    return int(await connection.fetchval(_ON_POSTGRES, *columns))
