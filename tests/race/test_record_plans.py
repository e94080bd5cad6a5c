"""What is said for every batch never scans a table, though it was planned once and for all while that was empty."""

import pytest

from app.core.database import Database
from app.core.drivers import RawPostgres
from app.fastpath.settlement import SETTLE
from app.ledger.postgres import BY_ID, LOCK, LOOK, write_new_statement, write_statement

INSERTS = {**dict.fromkeys(("added", "opened", "delivered", "moved", "counted"), "'[]'"), "bodies": "''"}
ARGUMENTS = {
    LOOK: ("ARRAY['g']", "ARRAY['evt']"),
    LOCK: ("ARRAY['g']",),
    BY_ID: ("ARRAY['g']",),
    write_statement(*INSERTS, "changed", "repeated", "closed", "expected"): (
        *INSERTS.values(),
        *("'[]'", "'[]'", "ARRAY['g']", "0"),
    ),
    write_new_statement(*INSERTS): (*INSERTS.values(), "ARRAY['g']", "ARRAY['evt']"),
    SETTLE: ("'[]'", "''", "ARRAY['id']", "0"),
}


@pytest.mark.parametrize("statement", ARGUMENTS, ids=["look", "lock", "by id", "write", "write new", "settle"])
async def test_a_plan_made_for_empty_tables_uses_their_keys(postgres_url: str, statement: str) -> None:
    plan = await planned(postgres_url, statement, ARGUMENTS[statement])
    scans = [line for line in plan.splitlines() if "Seq Scan" in line or "Hash Join" in line or "Merge Join" in line]
    assert [line for line in scans if "transitions_feed_position_seq" not in line] == []  # that one has one row


async def planned(url: str, statement: str, arguments: tuple[str, ...]) -> str:
    database = Database(url)
    assert isinstance(database.direct, RawPostgres)
    async with database.direct.transaction() as connection:
        await connection.execute(f"PREPARE said AS {statement}")
        plan = await connection.fetch(f"EXPLAIN EXECUTE said ({', '.join(arguments)})")
    await database.dispose()
    return "\n".join(line for (line,) in plan)
