"""Positions in the feed: a reader that stays below the locks of those who write sees every row once and in order."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import text

from app.ledger.postgres import FEED_LOCK
from app.ledger.tables import transitions
from tests.support.ledger_harness import open_ledger
from tests.support.reports import submit

NEXT = "SELECT last_value + is_called::int FROM transitions_feed_position_seq"
LOWEST_LOCK = f"""
SELECT min(key) - {FEED_LOCK} FROM (
    SELECT (classid::bigint << 32) + objid::bigint AS key FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS held WHERE key BETWEEN {FEED_LOCK} AND {FEED_LOCK} + (1::bigint << 48)
"""  # noqa: S608 - of a constant
ROWS = "SELECT feed_position FROM transitions WHERE feed_position > $1 AND feed_position < $2 ORDER BY feed_position"
LATE_COMMIT = """
CREATE FUNCTION commit_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(1);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER commit_late AFTER INSERT ON transitions DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.generation_id = 'late') EXECUTE FUNCTION commit_late()
"""


async def read_below_locks(reader: asyncpg.Connection, after: int) -> list[int]:
    end = await reader.fetchval(NEXT)
    lowest = await reader.fetchval(LOWEST_LOCK)
    return [row[0] for row in await reader.fetch(ROWS, after, end if lowest is None else min(end, lowest))]


async def read_all(reader: asyncpg.Connection, after: int) -> list[int]:
    return [row[0] for row in await reader.fetch(ROWS, after, 2**40)]


@pytest.mark.parametrize(("read", "misses"), [(read_below_locks, False), (read_all, True)])
async def test_a_reader_passes_no_row_that_is_committed_late(postgres_url: str, read: object, *, misses: bool) -> None:
    async with open_ledger(postgres_url) as room, open_ledger(postgres_url) as other:
        async with room.database.transaction() as connection:
            for statement in LATE_COMMIT.split(";\nCREATE CONSTRAINT"):
                await connection.execute(text(statement if "FUNCTION commit_late()" in statement[:40]
                                              else f"CREATE CONSTRAINT{statement}"))  # fmt: skip
        reader = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        seen_positions: list[int] = []
        late = asyncio.create_task(room.ledger.record([submit("late")]))
        number = 0
        while not late.done():
            await other.ledger.record([submit(f"g{number}")])
            number += 1
            seen_positions += await read(reader, max(seen_positions, default=0))  # type: ignore[operator]
        await late
        seen_positions += await read(reader, max(seen_positions, default=0))  # type: ignore[operator]
        await reader.close()
        recorded = [row["feed_position"] for row in await room.rows(transitions)]
        assert number > 1
        assert (seen_positions != recorded) == misses
