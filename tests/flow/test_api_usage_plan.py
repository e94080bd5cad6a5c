"""Usage of a month is read from sums: no generation is read, however many there are."""

from datetime import timedelta

import pytest
from sqlalchemy import insert

from app.core.database import Database
from app.ledger.queries import Queries
from app.ledger.tables import usage_hours
from tests.support.clock import NOON
from tests.support.plans import explain

HOURS = 24 * 365


async def summed_for_a_year(database: Database) -> None:
    """A row for each hour, as many as the service would have made of any number of generations."""
    nothing = {"open": 0, "reserved_credits": 2, "final_credits": 1.5, "submitted_by": "shop", "model": "z-image"}
    rows = [{"hour": NOON + timedelta(hours=n), "generations": 1_000_000, **nothing} for n in range(HOURS)]
    async with database.transaction() as connection:
        await connection.execute(insert(usage_hours), rows)


@pytest.mark.parametrize("days", [1, 30])
async def test_usage_reads_the_hours_it_is_about_and_no_generation(database_url: str, days: int) -> None:
    database = Database(database_url)
    await summed_for_a_year(database)
    plans: list[str] = []
    explain(database, plans)
    first = NOON + timedelta(days=3)
    lines = await Queries(database).usage(first, first + timedelta(days=days), most=10_001)
    await database.dispose()
    assert sum(line.generations for line in lines) == days * 24 * 1_000_000
    assert sum(line.final_credits for line in lines) == days * 24 * 1.5
    assert len(lines) == days + 1
    [plan] = plans
    assert "ix_usage_hours_hour" in plan
    assert "Seq Scan" not in plan
    assert " generations" not in plan
