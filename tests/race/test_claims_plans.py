"""Polling stays cheap however much has been recorded: its statements read the index of what is due, and no table."""

import re
from collections.abc import Mapping
from datetime import timedelta

import pytest
from sqlalchemy import Executable, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Database
from app.ledger.queries import overdue
from app.polling.claims import ADVANCE, CLAIM, LEASE, NEXT_DUE, PLANNED_ONCE, DuePolls
from tests.support.clock import NOON

# 900 that wait for their poll, 100 that are due, and 19,000 that are lost; nine tokens have submitted them.
_FILL = """
INSERT INTO polls (generation_id, first_seen_at, source, token, state, next_poll_at, polls, failures, not_found_count)
SELECT 'g' || n, :noon, 'submit', 'token-' || n % 9, CASE WHEN n > 1000 THEN 'lost' ELSE 'watching' END,
    CASE WHEN n <= 1000 THEN CAST(:noon AS timestamptz) + (n - 100) * interval '1 second' END, 0, 0, 0
FROM generate_series(1, 20000) AS n
"""


async def plan(
    connection: AsyncConnection, statement: Executable, parameters: Mapping[str, object], *, options: str = "COSTS"
) -> str:
    compiled = statement.compile(dialect=connection.dialect)  # type: ignore[attr-defined]
    values = {**compiled.params, **parameters}
    explained = await connection.exec_driver_sql(
        f"EXPLAIN ({options}) {compiled}", tuple(values[name] for name in compiled.positiontup)
    )
    return "\n".join(line for (line,) in explained)


_TIMES = {"since": NOON - timedelta(days=1), "now": NOON, "until": NOON + LEASE}
_FEW = {"most": 5, "each": 5, "after": ""}


@pytest.mark.parametrize("statement", ["claim", "next due", "pull forward", "overdue"])
async def test_no_statement_of_polling_scans_the_table(postgres_url: str, statement: str) -> None:
    database = Database(postgres_url)
    statements: dict[str, Executable] = {
        "claim": CLAIM,
        "next due": NEXT_DUE,
        "pull forward": ADVANCE,
        "overdue": select(overdue()),
    }
    times = {**_TIMES, "to": NOON, "later_than": NOON + timedelta(seconds=890)}
    async with database.transaction() as connection:
        await connection.execute(text(_FILL), {"noon": NOON})
        await connection.execute(text("ANALYZE polls"))
        if statement == "claim":
            await connection.execute(PLANNED_ONCE)
        query_plan = await plan(connection, statements[statement], {**_FEW, **times})
    await database.dispose()
    used, others = "ix_polls_token_source_next_poll_at", "ix_polls_next_poll_at"
    if statement != "claim":
        used, others = others, used
    assert used in query_plan
    assert others not in query_plan
    assert "Seq Scan" not in query_plan


# The order of their times is not the order in which they are stored.
_FILL_DUE = """
INSERT INTO polls (generation_id, first_seen_at, source, token, state, next_poll_at, polls, failures, not_found_count)
SELECT 'g' || n, :noon, 'submit', 'shop', 'watching',
    CAST(:noon AS timestamptz) - (n * 7919 % 20000) * interval '10 ms', 0, 0, 0
FROM generate_series(1, 20000) AS n
"""


_READ = "ANALYZE, BUFFERS, COSTS OFF, TIMING OFF"


def _pages(query_plan: str) -> int:
    read = re.search(r"Buffers: shared hit=(\d+)", query_plan)
    assert read is not None, query_plan
    return int(read[1])


async def test_a_claim_does_not_read_on_through_polls_of_another_source(postgres_url: str) -> None:
    database = Database(postgres_url)
    async with database.transaction() as connection:
        await connection.execute(text(_FILL_DUE), {"noon": NOON})
        await connection.execute(text("ANALYZE polls"))
        await connection.execute(PLANNED_ONCE)
        query_plan = await plan(connection, CLAIM, {**_FEW, **_TIMES}, options=_READ)
    await database.dispose()
    assert _pages(query_plan) < 200, query_plan


async def test_the_plan_that_was_made_while_the_table_was_empty_reads_no_more_once_it_has_grown(
    postgres_url: str,
) -> None:
    database = Database(postgres_url)
    async with database.transaction() as connection:
        await connection.execute(PLANNED_ONCE)
        compiled, values = CLAIM.compile(dialect=connection.dialect), {**_FEW, **_TIMES}
        await connection.exec_driver_sql(f"PREPARE claim AS {compiled}")
        parameters = ", ".join(repr(str(values[name])) for name in compiled.positiontup or ())
        execute = f"EXPLAIN ({_READ}) EXECUTE claim ({parameters})"
        empty = "\n".join(line for (line,) in await connection.exec_driver_sql(execute))
        await connection.execute(text(_FILL_DUE), {"noon": NOON})
        grown = "\n".join(line for (line,) in await connection.exec_driver_sql(execute))
    await database.dispose()
    assert "Seq Scan" not in empty
    assert _pages(grown) < 200, grown


async def test_what_was_settled_under_a_snapshot_that_stays_open_is_not_passed_by_every_claim(
    postgres_url: str,
) -> None:
    database, due = Database(postgres_url), DuePolls(is_sqlite=False)
    async with database.transaction() as connection:
        await connection.execute(text(_FILL_DUE), {"noon": NOON})
        await connection.execute(text("ANALYZE polls"))
    async with database.engine.connect() as reader:
        await reader.execution_options(isolation_level="REPEATABLE READ")
        await reader.execute(text("SELECT count(*) FROM polls"))
        first = NOON - timedelta(seconds=20)
        async with database.transaction() as connection:
            await connection.execute(text("DELETE FROM polls WHERE next_poll_at < :first"), {"first": first})
        async with database.transaction() as connection:
            assert await due.next_due(connection, now=NOON) == first
            await connection.execute(PLANNED_ONCE)
            pages = [
                _pages(await plan(connection, CLAIM, {**_FEW, **_TIMES, "since": since}, options=_READ))
                for since in (NOON - timedelta(days=1), due.since)
            ]
    await database.dispose()
    assert pages[0] > 10_000
    assert pages[1] < 400
