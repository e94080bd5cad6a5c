"""Fills PostgreSQL with what retention is for: old settled generations, their histories and their deliveries."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bench.world import on_postgres

_AT_ONCE = 50_000
_BODY = """'{"id":"evt_' || id || '","type":"generation.succeeded","api_version":"2026-05-11","created_at":"2026-05-11T00:01:00.000Z","data":' || made.rivya_object || '}'"""  # noqa: E501
_OBJECT = """'{"id":"' || id || '","status":"succeeded","model":"z-image","reserved_credits":1,"final_credits":1,"created_at":"2026-05-11T00:00:00.000Z","updated_at":"2026-05-11T00:01:00.000Z","result":{"primary_url":"https://media.example/' || id || '.png","urls":["https://media.example/' || id || '.png"]},"error":null}'"""  # noqa: E501
_GENERATIONS = f"""
WITH made AS MATERIALIZED (
    SELECT *, {_OBJECT} AS rivya_object FROM (
        SELECT 'old_' || n AS id, n, now() - interval '200 days' + n * interval '1 second' AS seen
        FROM generate_series($1::bigint, $2::bigint) AS n
    ) AS numbered
), known AS (
    INSERT INTO generations (id, status, model, rivya_object, reserved_credits, final_credits, client_request_id,
        submitted_by, first_seen_at, settled_at, settled_by, callback_received_at, last_number, revision, polls)
    SELECT id, 'succeeded', 'model-' || n % 20, rivya_object, 1, 1, 'order-' || n, 'token-' || n % 9, seen, seen,
        'webhook', seen, 2, 2, 0 FROM made
), moved AS (
    INSERT INTO transitions (generation_id, number, from_status, to_status, source, event_id, recorded_at)
    SELECT id, step, CASE step WHEN 2 THEN 'queued' END, CASE step WHEN 1 THEN 'queued' ELSE 'succeeded' END,
        CASE step WHEN 1 THEN 'submit' ELSE 'webhook' END, CASE step WHEN 2 THEN 'evt_' || id END, seen
    FROM made, generate_series(1, 2) AS step
)
INSERT INTO deliveries (event_id, event_type, generation_id, received_at, body, headers, outcome, attempts)
SELECT 'evt_' || id, 'generation.succeeded', id, seen, convert_to({_BODY}, 'UTF8'),
    '{{"rivya-signature": "t=1,v1=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}}', 'applied', 1
FROM made
"""  # noqa: S608
_OPEN = """
WITH opened AS (
    INSERT INTO generations (id, status, rivya_object, first_seen_at, last_number, revision, polls)
    SELECT 'open_' || n, 'queued', '{}', now() - interval '300 days', 1, 1, 0 FROM generate_series(1, $1::bigint) AS n
    RETURNING id, first_seen_at
)
INSERT INTO polls (generation_id, first_seen_at, source, state, polls, failures, not_found_count)
SELECT id, first_seen_at, 'submit', 'lost', 0, 0, 0 FROM opened
"""
_KEYS = """
INSERT INTO deliveries (event_id, received_at, body, headers, outcome, attempts, body_pruned_at)
SELECT 'evt_' || $1::text || '_' || n, now() - interval '200 days', '', '{}', 'test', 1,
    now() - $3::float8 * interval '1 day'
FROM generate_series(1, $2::bigint) AS n
"""
_LEFT = """
SELECT (SELECT count(*) FROM generations WHERE id LIKE 'old\\_%') AS generations,
    (SELECT count(*) FROM transitions WHERE generation_id LIKE 'old\\_%') AS transitions,
    (SELECT count(*) FROM deliveries WHERE event_id LIKE 'evt\\_old\\_%' AND body <> '') AS bodies,
    (SELECT count(*) FROM deliveries WHERE event_id LIKE 'evt\\_old\\_%') AS keys,
    (SELECT count(*) FROM deliveries WHERE event_id LIKE 'evt\\_young\\_%') AS young_keys,
    (SELECT count(*) FROM deliveries WHERE event_id LIKE 'evt\\_expired\\_%') AS expired_keys,
    (SELECT count(*) FROM generations WHERE id LIKE 'open\\_%') AS open
"""


@dataclass(frozen=True, slots=True)
class Left:
    """How many rows of each kind are there."""

    generations: int
    transitions: int
    bodies: int
    keys: int
    young_keys: int
    """Of bodies that went 29 days ago."""
    expired_keys: int
    """Of bodies that went 31 days ago."""
    open: int

    @property
    def is_pruned(self) -> bool:
        """All that is to go has gone."""
        return not (self.generations or self.expired_keys)


def fill_old(url: str, *, settled: int, others: int) -> None:
    """Generations settled 200 days ago; and so many that are open, and keys whose time has or has not come."""
    on_postgres(url, _filling(settled, others))


def left(url: str) -> Left:
    """Count them."""
    return on_postgres(url, _count)


def _filling(settled: int, others: int) -> Callable[[Any], Awaitable[None]]:
    async def act(connection: Any) -> None:  # noqa: ANN401 - asyncpg tells no types
        await connection.execute("SET synchronous_commit = off")
        for begin in range(1, settled + 1, _AT_ONCE):
            await connection.execute(_GENERATIONS, begin, min(begin + _AT_ONCE - 1, settled), timeout=600)
        await connection.execute(_OPEN, others)
        await connection.execute(_KEYS, "young", others, 29.0)
        await connection.execute(_KEYS, "expired", others, 31.0)
        for table in ("generations", "polls", "transitions", "deliveries"):
            await connection.execute(f"VACUUM ANALYZE {table}", timeout=600)
        await connection.execute("CHECKPOINT", timeout=600)

    return act


async def _count(connection: Any) -> Left:  # noqa: ANN401 - asyncpg tells no types
    return Left(**dict(await connection.fetchrow(_LEFT, timeout=600)))
