"""The feed on PostgreSQL: every reader sees each event once and in the same order, whatever writers do meanwhile."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy import text

from app.core.database import Database
from app.ledger.feed import Feed, FeedCursor
from app.ledger.models import EventFilter
from app.ledger.postgres import FEED_LOCK
from app.ledger.tables import transitions
from tests.support.databases import PostgresDatabases
from tests.support.deployment import ROOT
from tests.support.ledger_harness import LedgerHarness, open_ledger
from tests.support.postgres_install import find_binaries
from tests.support.reports import submit

EACH = max(125, 12_500 * int(os.environ.get("SOAK_EXAMPLES", "0")) // 1800)
"""Generations of each of four processes, with two transitions each: in the soak of 30 minutes 100,000 transitions."""
EARLIER = 50
"""Commits of another replica that overtake the late one."""
HOLD = "SELECT pg_advisory_xact_lock(0, 1)"
FUNCTION = """
CREATE FUNCTION commit_late() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(0, 1);
    RETURN NULL;
END $$
"""
TRIGGER = """
CREATE CONSTRAINT TRIGGER commit_late AFTER INSERT ON transitions DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.generation_id = 'late') EXECUTE FUNCTION commit_late()
"""
ALL = EventFilter()
NEXT = "SELECT last_value + is_called::int FROM transitions_feed_position_seq"
LOCK_NEXT = f"SELECT pg_advisory_xact_lock_shared({FEED_LOCK} + ({NEXT}))"


class Reader:
    """Reads the feed from its beginning, again and again."""

    def __init__(self, database: Database, *, limit: int = 200) -> None:
        self.feed = Feed(database)
        self.after = FeedCursor()
        self.ids: list[str] = []
        self._limit = limit

    async def read_on(self) -> None:
        """To the end of the feed, as callers of the API do: with the text of the cursor."""
        if not self.ids:
            self.after = await self.feed.cursor(None)
        has_more = True
        while has_more:
            page = await self.feed.read(ALL, after=self.after, limit=self._limit)
            self.after = await self.feed.cursor(self.feed.encode(page.next))
            self.ids += [event.id for event in page.events]
            has_more = page.has_more

    @property
    def positions(self) -> list[int]:
        return [self.feed._decode(cursor).position for cursor in self.ids]


@asynccontextmanager
async def readers_meanwhile(room: LedgerHarness) -> AsyncIterator[list[Reader]]:
    """Three readers that page all the while; at the end each has read everything."""
    readers, is_over = [Reader(room.database, limit=limit) for limit in (5, 60, 1000)], asyncio.Event()

    async def follow(reader: Reader) -> None:
        while not is_over.is_set():
            await reader.read_on()
        await reader.read_on()

    following = [asyncio.create_task(follow(reader)) for reader in readers]
    try:
        yield readers
    finally:
        is_over.set()
        await asyncio.gather(*following)


async def recorded_positions(room: LedgerHarness) -> list[int]:
    return [row["feed_position"] for row in await room.rows(transitions)]


async def test_no_reader_passes_an_event_whose_commit_is_late(postgres_url: str) -> None:
    async with open_ledger(postgres_url) as room, open_ledger(postgres_url) as other:
        async with room.database.transaction() as connection:
            await connection.execute(text(FUNCTION))
            await connection.execute(text(TRIGGER))
        async with readers_meanwhile(room) as readers:
            async with other.database.transaction() as holder:
                await holder.execute(text(HOLD))
                late = asyncio.create_task(room.ledger.record([submit("late")]))
                for number in range(EARLIER):
                    await other.ledger.record([submit(f"g{number}")])
                assert not late.done()
            await late
        for reader in readers:
            assert reader.positions == await recorded_positions(room)
            assert len(reader.positions) == EARLIER + 1


WRITER = """
import asyncio, sys
from tests.support.ledger_harness import open_ledger
from tests.support.reports import submit, webhook

async def main(url, name, number):
    async with open_ledger(url) as room:
        async def write(part):
            for first in range(part, number, 40):
                batch = range(first, min(first + 10, number))
                await room.ledger.record([submit(f"{name}-{n}") for n in batch])
                await room.ledger.record([webhook(f"{name}-{n}", "succeeded") for n in batch])
        await asyncio.gather(*(write(part) for part in range(0, 40, 10)))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def written_by_four_processes(url: str, number: int) -> None:
    """Of each generation two transitions; each process has four writers."""
    writers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, url, f"p{process}", str(number), cwd=ROOT)
        for process in range(4)
    ]
    assert [await writer.wait() for writer in writers] == [0, 0, 0, 0]


async def test_what_four_processes_write_is_read_once_and_in_one_order_by_all(postgres_url: str) -> None:
    async with open_ledger(postgres_url) as room:
        async with readers_meanwhile(room) as readers:
            await written_by_four_processes(postgres_url, EACH)
        expected = await recorded_positions(room)
        assert len(expected) == 4 * 2 * EACH
        for reader in readers:
            assert reader.positions == expected


async def test_a_reader_waits_for_a_writer_that_has_begun_but_not_for_one_that_is_gone(
    postgres_url: str, postgres_databases: PostgresDatabases
) -> None:
    """A process that is killed, as its connection ends: the lock ends with it, and its positions stay unused."""
    async with open_ledger(postgres_url) as room:
        writer = await asyncpg.connect(postgres_databases.direct(postgres_url))
        await writer.execute("BEGIN")
        await writer.execute(LOCK_NEXT)
        await writer.execute("SELECT nextval('transitions_feed_position_seq')")
        await room.ledger.record([submit("a")])
        reader = Reader(room.database)
        await reader.read_on()
        assert reader.ids == []
        writer.terminate()
        async with asyncio.timeout(20):
            while not reader.ids:
                await reader.read_on()


async def test_transactions_that_write_no_events_and_other_databases_hold_no_reader_up(
    postgres_url: str, postgres_databases: PostgresDatabases
) -> None:
    elsewhere = await asyncio.to_thread(postgres_databases.migrated)
    begun = []
    for url in (postgres_url, elsewhere):
        connection = await asyncpg.connect(postgres_databases.direct(url))
        await connection.execute("BEGIN")
        await connection.execute("UPDATE feed SET removed_through = 0")  # has an id of its own, and stays open
        begun.append(connection)
    await begun[1].execute(LOCK_NEXT)
    async with open_ledger(postgres_url) as room:
        await room.ledger.record([submit("a")])
        reader = Reader(room.database)
        await reader.read_on()
        assert len(reader.ids) == 1
    for connection in begun:
        await connection.close()
    await asyncio.to_thread(postgres_databases.drop, elsewhere)


async def dumped_and_restored(source: str, target: str) -> None:
    binaries = find_binaries()
    script = f'"{binaries}/pg_dump" "{source}" | "{binaries}/psql" --quiet --set ON_ERROR_STOP=1 "{target}"'
    process = await asyncio.create_subprocess_exec(
        "bash", "-o", "pipefail", "-c", script, stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0


async def test_a_restored_dump_goes_on_with_the_cursors_that_were_given_out(
    postgres_url: str, empty_postgres_url: str, postgres_databases: PostgresDatabases
) -> None:
    async with open_ledger(postgres_url) as room:
        await room.ledger.record([submit("a")])
        await room.ledger.record([submit("b")])
        await dumped_and_restored(*map(postgres_databases.direct, (postgres_url, empty_postgres_url)))
        before = Reader(room.database)
        await before.read_on()
        a, b = before.ids
        await room.ledger.record([submit("lost")])
        await before.read_on()
        lost = before.ids[-1]
    async with open_ledger(empty_postgres_url) as room:
        reader = Reader(room.database)
        assert (await reader.feed.read(ALL, after=await reader.feed.cursor(b), limit=5)).events == []
        page = await reader.feed.read(ALL, after=await reader.feed.cursor(lost), limit=5)
        assert (page.events, page.gap) == ([], True), "what it has read is not there, and it is told so"
        await room.ledger.record([submit("c")])
        [event] = (await reader.feed.read(ALL, after=page.next, limit=5)).events
        assert event.generation.id == "c"
        for cursor, names, gap in ((a, ["b", "c"], False), (b, ["c"], False), (lost, ["c"], True)):
            page = await reader.feed.read(ALL, after=await reader.feed.cursor(cursor), limit=5)
            assert ([event.generation.id for event in page.events], page.gap) == (names, gap)
