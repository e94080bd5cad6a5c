"""Fills `generations`, all settled but one in a hundred, which are due; and the deliveries and transitions before."""

import sqlite3
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from bench.world import World, on_postgres

SIZES = (10_000, 1_000_000, 5_000_000)
SUBMISSIONS = 200_000
BIG = "five million generations"
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
    submitted_by, first_seen_at, settled_at, failed_at, settled_by, callback_received_at, last_number, revision, polls)
SELECT id, CASE WHEN is_due THEN 'queued' WHEN n % 20 = 1 THEN 'failed' ELSE 'succeeded' END, 'model-' || n % 20,
    {_OBJECT}, 1, 1, 'order-' || n, 'token-' || n % 9, seen, CASE WHEN NOT is_due THEN seen END,
    CASE WHEN NOT is_due AND n % 20 = 1 THEN seen END, CASE WHEN NOT is_due THEN 'webhook' END,
    CASE WHEN NOT is_due THEN seen END, 1, 1, 0
{_NUMBERS}
"""
_POLLS = f"""
INSERT INTO polls (generation_id, first_seen_at, source, state, next_poll_at, polls, failures, not_found_count)
SELECT id, seen, 'submit', 'watching', seen, 0, 0, 0
{_NUMBERS}
WHERE is_due
"""

_PAST = f"""
INSERT INTO deliveries (event_id, event_type, generation_id, endpoint_id, received_at, body, headers, outcome, attempts)
SELECT 'evt_' || n, CASE WHEN n % 100000 = 7 THEN 'generation.archived' WHEN n % 20 = 1 THEN 'generation.failed'
    ELSE 'generation.succeeded' END, id, 'endpoint', seen, convert_to(repeat('a body of Rivya ', 30), 'UTF8'),
    '{{}}', CASE n % 100000 WHEN 7 THEN 'unknown_type' WHEN 8 THEN 'unreadable'
    WHEN 9 THEN 'conflict' ELSE 'applied' END, 1
{_NUMBERS}
"""
_MOVED = f"""
INSERT INTO transitions (generation_id, number, to_status, source, event_id, recorded_at)
SELECT id, 1, CASE WHEN is_due THEN 'queued' WHEN n % 20 = 1 THEN 'failed' ELSE 'succeeded' END, 'webhook', 'evt_' || n,
    seen
{_NUMBERS}
"""

_SENT = """
INSERT INTO submissions (id, idempotency_key, request_hash, request, state, is_final, response_status, response,
    generation_id, attempts, retries, sent_at, next_attempt_at, created_at, resolved_at)
SELECT 'submission-' || n, 'key-of-' || n, md5(n::text), '', CASE WHEN is_open THEN 'unknown' ELSE 'accepted' END,
    CASE WHEN is_open THEN 0 ELSE 1 END, CASE WHEN NOT is_open THEN 200 END, '', CASE WHEN NOT is_open THEN 'task_' || n
    END, 1, 0, at, CASE WHEN is_open THEN at + interval '9 days' END, at, CASE WHEN NOT is_open THEN at END
FROM (
    SELECT n, n % 100 = 0 AS is_open, $2::timestamptz + n * interval '1 millisecond' AS at
    FROM generate_series(1, $1::bigint) AS n
) AS made
"""


def big(world: World) -> str:
    """The URL of a database with `SIZES[-1]` generations: what an earlier section left, or made now."""
    url = world.filled.pop(BIG, None)
    if url is None:
        url = world.fresh("postgresql")
        fill(url, first=1, last=SIZES[-1])
    return url


def fill_history(url: str, *, last: int, due_each: int = 100) -> None:
    """Insert what led to the generations 1 to `last`; 1 delivery in 33,333 is out of the ordinary."""
    on_postgres(url, partial(_insert_history, last, due_each))


async def _insert_history(last: int, due_each: int, connection: Any) -> None:  # noqa: ANN401 - asyncpg tells no types
    start = datetime.now(UTC) - timedelta(days=2)
    await connection.execute("SET synchronous_commit = off")
    for begin in range(1, last + 1, _AT_ONCE):
        numbers = (begin, min(begin + _AT_ONCE - 1, last), start, due_each)
        await connection.execute(_PAST, *numbers)
        await connection.execute(_MOVED, *numbers)
    await connection.execute(_SENT, min(last, SUBMISSIONS), start)
    await connection.execute("VACUUM ANALYZE deliveries, transitions, submissions")


def fill(url: str, *, first: int, last: int, due_each: int = 100) -> None:
    """Insert the generations `first` to `last`, every so manyth due, and vacuum as autovacuum would sooner or later."""
    on_postgres(url, partial(_insert, first, last, due_each))


async def _insert(first: int, last: int, due_each: int, connection: Any) -> None:  # noqa: ANN401 - asyncpg tells no types
    start = datetime.now(UTC) - timedelta(days=2)
    await connection.execute("SET synchronous_commit = off")
    for begin in range(first, last + 1, _AT_ONCE):
        for statement in (_GENERATIONS, _POLLS):
            await connection.execute(statement, begin, min(begin + _AT_ONCE - 1, last), start, due_each)
    await connection.execute("VACUUM ANALYZE generations, polls")


_MADE_ON_SQLITE = """
WITH RECURSIVE numbers (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n < :last),
made AS (SELECT n, 'task_' || n AS id, n % 100 = 0 AS is_due,
    strftime('%Y-%m-%d %H:%M:%f000', :start, '+' || (n / 1000.0) || ' seconds') AS seen FROM numbers)
"""
_ON_SQLITE = (
    f"""{_MADE_ON_SQLITE}
INSERT INTO generations (id, status, model, rivya_object, reserved_credits, final_credits, client_request_id,
    submitted_by, first_seen_at, settled_at, settled_by, callback_received_at, last_number, revision, polls)
SELECT id, iif(is_due, 'queued', 'succeeded'), 'model-' || (n % 20), {_OBJECT}, 1, 1, 'order-' || n,
    'token-' || (n % 9), seen, iif(is_due, NULL, seen), iif(is_due, NULL, 'webhook'), iif(is_due, NULL, seen), 1, 1, 0
FROM made
""",  # noqa: S608 - of text of ours
    f"""{_MADE_ON_SQLITE}
INSERT INTO polls (generation_id, first_seen_at, source, state, next_poll_at, polls, failures, not_found_count)
SELECT id, seen, 'submit', 'watching', seen, 0, 0, 0 FROM made WHERE is_due
""",  # noqa: S608
)


def fill_sqlite(url: str, *, first: int, last: int) -> None:
    """The same on SQLite, and no ANALYZE: nothing of ours runs it either."""
    start = (datetime.now(UTC) - timedelta(days=2)).strftime("%Y-%m-%d %H:%M:%S")
    connection = sqlite3.connect(url.partition("///")[2])
    try:
        connection.execute("PRAGMA synchronous = off")
        for statement in _ON_SQLITE:
            connection.execute(statement, {"first": first, "last": last, "start": start})
        connection.commit()
    finally:
        connection.close()
