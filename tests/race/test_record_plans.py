"""What is said for every batch never scans a table, though it was planned once and for all while that was empty."""

import pytest

from app.core.database import Database
from app.core.direct import Direct
from app.ledger.on_postgres_statements import BY_ID, BY_MONTH, LOCK, LOOK, WHOLE, WRITE
from migrations.partitioning.commands import apply

ARGUMENTS = {
    LOOK: ("ARRAY['g']", "ARRAY['evt']"),
    LOCK: ("ARRAY['g']",),
    BY_ID: ("ARRAY['g']",),
    WRITE: ("'[]'", "'[]'", "'[]'", "''", "0"),
    WHOLE.write_new: ("'[]'", "'[]'", "'[]'", "''", "ARRAY['g']", "ARRAY['evt']"),
}


@pytest.mark.parametrize("statement", ARGUMENTS, ids=["look", "lock", "by id", "write", "write new"])
async def test_a_plan_made_for_empty_tables_uses_their_keys(postgres_url: str, statement: str) -> None:
    assert "Seq Scan" not in await planned(postgres_url, statement, ARGUMENTS[statement])


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        (BY_MONTH.look, ARGUMENTS[LOOK]),
        (BY_MONTH.write, ARGUMENTS[WRITE]),
        (BY_MONTH.write_new, ARGUMENTS[WHOLE.write_new]),
    ],
    ids=["look", "write", "write new"],
)
async def test_on_partitioned_tables_nothing_looks_into_every_month(
    postgres_url: str, statement: str, arguments: tuple[str, ...]
) -> None:
    await apply(postgres_url)
    plan = await planned(postgres_url, statement, arguments)
    assert "Seq Scan" not in plan
    assert "deliveries_" not in plan


async def planned(url: str, statement: str, arguments: tuple[str, ...]) -> str:
    database = Database(url)
    assert isinstance(database.direct, Direct)
    async with database.direct.transaction() as connection:
        await connection.execute(f"PREPARE said AS {statement}")
        plan = await connection.fetch(f"EXPLAIN EXECUTE said ({', '.join(arguments)})")
    await database.dispose()
    return "\n".join(line for (line,) in plan)
