"""Fills `generations` on PostgreSQL with as many rows as wanted, all settled but one in a hundred, which are due."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from bench.world import on_postgres

_AT_ONCE = 100_000
_OBJECT = """'{"id":"' || id || '","status":"succeeded","model":"z-image","reserved_credits":1,"final_credits":1,"created_at":"2026-05-11T00:00:00.000Z","updated_at":"2026-05-11T00:01:00.000Z","result":{"primary_url":"https://media.example/' || id || '.png","urls":["https://media.example/' || id || '.png"]},"error":null}'"""  # noqa: E501
_NUMBERS = """
FROM (
    SELECT 'task_' || n AS id, n, n % $4::bigint = 0 AS is_due, $3::timestamptz + n * interval '1 millisecond' AS seen
    FROM generate_series($1::bigint, $2::bigint) AS n
) AS made
"""
_GENERATIONS = f"""
INSERT INTO generations (id, status, model, rivya_object, reserved_credits, final_credits, client_request_id,
    submitted_by, first_seen_at, settled_at, settled_by, callback_received_at, last_number, revision, tracking,
    next_poll_at, polls, poll_failures, not_found_count)
SELECT id, CASE WHEN is_due THEN 'queued' WHEN n % 20 = 1 THEN 'failed' ELSE 'succeeded' END, 'model-' || n % 20,
    {_OBJECT}, 1, 1, 'order-' || n, 'token-' || n % 9, seen, CASE WHEN NOT is_due THEN seen END,
    CASE WHEN NOT is_due THEN 'webhook' END, CASE WHEN NOT is_due THEN seen END, 1, 1,
    CASE WHEN is_due THEN 'watching' ELSE 'settled' END, CASE WHEN is_due THEN seen END, 0, 0, 0
{_NUMBERS}
"""


def fill(url: str, *, first: int, last: int, due_each: int = 100) -> None:
    """Insert the generations `first` to `last`, every so manyth due, and vacuum as autovacuum would sooner or later."""
    on_postgres(url, partial(_insert, first, last, due_each))


async def _insert(first: int, last: int, due_each: int, connection: Any) -> None:  # noqa: ANN401 - asyncpg tells no types
    start = datetime.now(UTC) - timedelta(days=2)
    await connection.execute("SET synchronous_commit = off")
    for begin in range(first, last + 1, _AT_ONCE):
        await connection.execute(_GENERATIONS, begin, min(begin + _AT_ONCE - 1, last), start, due_each)
    await connection.execute("VACUUM ANALYZE generations")
