"""What was answered 200 is in the database exactly once, or the run is void."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson

from bench.events import Events
from bench.load import Load
from bench.world import on_postgres

_SETTLED_ONCE = """
SELECT count(*) FROM {wanted}
JOIN deliveries AS d ON d.event_id = wanted.event_id AND d.outcome = 'applied' AND d.attempts = 1
JOIN generations AS g ON g.id = wanted.generation_id AND g.status = 'succeeded' AND NOT EXISTS (
    SELECT 1 FROM polls WHERE generation_id = g.id)
WHERE (SELECT count(*) FROM transitions AS t WHERE t.generation_id = wanted.generation_id) = 1
  AND NOT EXISTS (
    SELECT 1 FROM deliveries AS o WHERE o.generation_id = wanted.generation_id AND o.outcome <> 'applied')
"""
_ON_POSTGRES = _SETTLED_ONCE.format(wanted="unnest($1::text[], $2::text[]) AS wanted (event_id, generation_id)")
_ON_SQLITE = _SETTLED_ONCE.format(
    wanted="(SELECT value ->> 0 AS event_id, value ->> 1 AS generation_id FROM json_each(?)) AS wanted"
)


class Void(Exception):
    """Something was answered 200 and is not there exactly once: no figure of this run counts."""


def verify(url: str, events: Events, load: Load) -> None:
    """Raises `Void`, also where an answer never came or was neither 2xx nor 503."""
    event_ids = [events.event_ids[place] for place in load.accepted]
    generation_ids = [events.generation_ids[place] for place in load.accepted]
    recorded = _count(url, event_ids, generation_ids)
    if recorded != len(event_ids):
        raise Void(f"{len(event_ids)} were answered 200, {recorded} of them are there exactly once")
    odd = {status: count for status, count in load.statuses.items() if status not in (200, 204, 503)}
    if odd or load.lost:
        raise Void(f"answers other than 2xx and 503: {odd}, never answered: {load.lost}")


def _count(url: str, event_ids: Sequence[str], generation_ids: Sequence[str]) -> int:
    if not url.startswith("sqlite"):
        return int(on_postgres(url, lambda opened: _count_on_postgres(opened, event_ids, generation_ids)))
    connection = sqlite3.connect(url.partition("///")[2])
    try:
        pairs = orjson.dumps(list(zip(event_ids, generation_ids, strict=True))).decode()
        return int(connection.execute(_ON_SQLITE, (pairs,)).fetchone()[0])
    finally:
        connection.close()


async def _count_on_postgres(connection: Any, event_ids: Sequence[str], generation_ids: Sequence[str]) -> int:  # noqa: ANN401
    # What was just written has no statistics yet: without this, each of the rows would be looked for in all the others.
    await connection.execute("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off")
    return int(await connection.fetchval(_ON_POSTGRES, event_ids, generation_ids))
