"""Usage of a month among a million generations is read from an index range: here a tenth of that on SQLite."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Database
from app.ledger.queries import Queries
from tests.clock import NOON

ROWS = {"postgresql": 1_000_000, "sqlite": 100_000}  # SQLite's choice does not depend on how many there are
AT_ONCE = 100_000
APART = timedelta(seconds=30)
MONTH = timedelta(days=30)
FILL = """
INSERT INTO generations (id, status, model, rivya_object, submitted_by, reserved_credits, final_credits, first_seen_at,
                         settled_at, settled_by, last_number, revision, tracking, polls, poll_failures, not_found_count)
{numbers}
SELECT 'task_' || n, 'succeeded', 'model-' || (n % 8), '{object}', 'token-' || (n % 9), 2, 1, {seen},
       {seen}, 'webhook', 1, 1, 'settled', 0, 0, 0
FROM numbers
"""
SEEN = {
    "postgresql": "CAST(:start AS timestamptz) + n * interval '30 seconds'",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%S.000000', :start, '+' || (n * 30) || ' seconds')",
}
NUMBERS = {
    "postgresql": "WITH numbers AS (SELECT generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n)",
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n < :last)",
}
OBJECT = '{"prompt": "' + "as long as one of Rivyas " * 16 + '"}'
INDEX = "ix_generations_first_seen_at_id"


@asynccontextmanager
async def a_million(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    kind = "sqlite" if database.is_sqlite else "postgresql"
    fill = FILL.format(numbers=NUMBERS[kind], object=OBJECT.replace(":", "\\:"), seen=SEEN[kind])
    start = str(NOON)[:19] if database.is_sqlite else NOON
    try:
        async with database.transaction() as connection:
            await drop_other_indexes(connection)
            for done in range(0, ROWS[kind], AT_ONCE):  # no statement may take 30 seconds
                await connection.execute(text(fill), {"start": start, "first": done + 1, "last": done + AT_ONCE})
        async with database.engine.connect() as connection:
            committing = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await committing.execute(text("ANALYZE" if database.is_sqlite else "VACUUM ANALYZE generations"))
        yield database
    finally:
        await database.dispose()


async def drop_other_indexes(connection: AsyncConnection) -> None:
    """Those that can't serve here only make the filling slow."""
    found = await connection.run_sync(lambda sync: inspect(sync).get_indexes("generations"))
    for name in {str(index["name"]) for index in found} - {INDEX}:
        await connection.execute(text(f'DROP INDEX "{name}"'))


def explain(database: Database, plans: list[str]) -> None:
    """Have `plans` told of every SELECT, just before it is sent."""
    explaining = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"

    def ask(_connection: Connection, cursor: object, statement: str, parameters: object, *_: object) -> None:
        if statement.startswith("SELECT"):
            cursor.execute(f"{explaining} {statement}", parameters)  # type: ignore[attr-defined]
            plans.append("\n".join(str(row[-1]) for row in cursor.fetchall()))  # type: ignore[attr-defined]

    event.listen(database.engine.sync_engine, "before_cursor_execute", ask)


async def test_the_usage_of_a_month_reads_that_month_and_no_more(database_url: str) -> None:
    async with a_million(database_url) as database:
        plans: list[str] = []
        explain(database, plans)
        first = NOON + timedelta(days=3)
        lines = await Queries(database).usage(first, first + MONTH, most=10_001)
        assert sum(line.generations for line in lines) == MONTH // APART
        assert sum(line.final_credits for line in lines) == MONTH // APART
        assert len(lines) == 31 * 8 * 9
        [plan] = plans
        assert INDEX in plan, plan
        assert "Seq Scan" not in plan
        assert "SCAN generations" not in plan
