"""Polling stays cheap however much has been recorded: its statements read the index of what is due, and no table."""

import re
from collections.abc import Mapping
from datetime import timedelta

import pytest
from sqlalchemy import Executable, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Database
from app.core.pagination import IN_ORDER
from app.ledger.queries import overdue
from app.polling.claims import ADVANCE, CHOOSE, LEASE, NEXT_DUE
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


@pytest.mark.parametrize("statement", ["claim", "next due", "pull forward", "overdue"])
async def test_no_statement_of_polling_scans_the_table(postgres_url: str, statement: str) -> None:
    database = Database(postgres_url)
    statements: dict[str, Executable] = {
        "claim": CHOOSE,
        "next due": NEXT_DUE,
        "pull forward": ADVANCE,
        "overdue": select(overdue()),
    }
    times = {"now": NOON, "until": NOON + LEASE, "to": NOON, "later_than": NOON + timedelta(seconds=890)}
    async with database.transaction() as connection:
        await connection.execute(text(_FILL), {"noon": NOON})
        await connection.execute(text("ANALYZE polls"))
        if statement == "claim":
            await connection.execute(IN_ORDER)
        query_plan = await plan(connection, statements[statement], {"most": 5, "after": "", **times})
    await database.dispose()
    used, others = "ix_polls_token_source_next_poll_at", "ix_polls_next_poll_at"
    if statement != "claim":
        used, others = others, used
    assert used in query_plan
    assert others not in query_plan
    assert "Seq Scan" not in query_plan


_FILL_DUE = """
INSERT INTO polls (generation_id, first_seen_at, source, token, state, next_poll_at, polls, failures, not_found_count)
SELECT 'g' || n, :noon, 'submit', 'shop', 'watching', CAST(:noon AS timestamptz) - n * interval '1 ms', 0, 0, 0
FROM generate_series(1, 20000) AS n
"""


async def test_a_claim_does_not_read_on_through_polls_of_another_source(postgres_url: str) -> None:
    database = Database(postgres_url)
    async with database.transaction() as connection:
        await connection.execute(text(_FILL_DUE), {"noon": NOON})
        await connection.execute(text("ANALYZE polls"))
        await connection.execute(IN_ORDER)
        options = "ANALYZE, BUFFERS, COSTS OFF, TIMING OFF"
        query_plan = await plan(connection, CHOOSE, {"most": 5, "after": "", "now": NOON}, options=options)
    await database.dispose()
    read = re.search(r"Buffers: shared hit=(\d+)", query_plan)
    assert read is not None
    assert int(read[1]) < 100, query_plan
