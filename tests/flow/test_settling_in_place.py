"""A settled generation is updated in place on PostgreSQL: no index is written, but for those that failed."""

from collections.abc import Callable

import asyncpg

from tests.support.ledger_harness import open_ledger
from tests.support.reports import submit, webhook

GENERATIONS = 400
AT_ONCE = 20
SHARE = 0.7
UPDATES = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'generations'"


async def test_most_known_generations_settle_in_place(
    postgres_url: str, record_property: Callable[[str, object], None]
) -> None:
    ids = [f"task_{number:04}" for number in range(GENERATIONS)]
    batches = [ids[start : start + AT_ONCE] for start in range(0, GENERATIONS, AT_ONCE)]
    async with open_ledger(postgres_url) as room:
        for batch in batches:
            await room.ledger.record([submit(it) for it in batch])
        for batch in batches:
            await room.ledger.record([webhook(it, "failed" if it.endswith("0") else "succeeded") for it in batch])
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    updated = in_place = 0
    while updated < GENERATIONS:  # a session reports what it did when it ends
        updated, in_place = await connection.fetchrow(UPDATES)
    await connection.close()
    record_property("reported", f"{in_place / updated:.0%} of {updated} settled generations were updated in place")
    assert in_place / updated >= SHARE
