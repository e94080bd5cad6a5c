"""Replicas hint to each other by NOTIFY that the feed has grown; nothing depends on a hint."""

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from time import monotonic

import asyncpg
import pytest

from app.core.background import BackgroundLoops
from app.core.clock import SystemClock
from app.ledger import feed
from app.ledger.feed import Feed, FeedPage, FeedTail
from app.ledger.feed_hints import CHANNEL, feed_hints
from app.ledger.models import EventFilter
from tests.support.databases import PostgresDatabases
from tests.support.ledger_harness import LedgerHarness, open_ledger
from tests.support.reports import submit

ALL = EventFilter()
NUMBER = 15
SAME_PROCESS, OTHER_PROCESS = 0.2, 1.0
"""Seconds from a commit to who follows the feed."""
LISTENERS = "SELECT pid FROM pg_stat_activity WHERE query ILIKE 'LISTEN%' AND datname = current_database()"


class Replica:
    """A ledger with what follows its feed."""

    def __init__(self, room: LedgerHarness, name: str) -> None:
        self.room = room
        self.hints = feed_hints(room.database, room.changes, name=name)
        self.tail = FeedTail(Feed(room.database), room.changes, self.hints)

    async def seconds_until(self, writer: "Replica", pages: AsyncIterator[FeedPage], name: str) -> float:
        """Seconds from a commit of `writer` until the follower has the event."""
        await writer.room.ledger.record([submit(name)])
        committed_at = monotonic()
        page = await anext(pages)
        assert [event.generation.id for event in page.events] == [name]
        return monotonic() - committed_at


@asynccontextmanager
async def replica(url: str, name: str) -> AsyncIterator[Replica]:
    async with open_ledger(url) as room, asyncio.timeout(60):
        it, loops = Replica(room, name), BackgroundLoops(SystemClock(), grace=0.1)
        loops.start("tail", it.tail.run_once)
        if it.hints is not None:
            loops.start("hints", it.hints.run_once)
        try:
            yield it
        finally:
            it.tail.stop()
            await loops.stop()
            if it.hints is not None:
                it.hints.close()


@asynccontextmanager
async def following(it: Replica) -> AsyncIterator[AsyncIterator[FeedPage]]:
    """Pages from now on, once the replica listens and knows the end of the feed."""
    paging = it.tail.pages(ALL, await it.tail.feed.latest(), limit=9, seconds=30)
    async with aclosing(paging) as pages:
        first = asyncio.create_task(anext(pages))
        while it.tail._recent is None or not (it.hints is None or it.hints.is_listening):
            await asyncio.sleep(0)
        await it.room.ledger.record([submit("first")])
        await first
        yield pages


@pytest.fixture
def url(postgres_url: str, postgres_databases: PostgresDatabases) -> str:
    """Without a pooler in between."""
    return postgres_databases.direct(postgres_url)


@pytest.mark.parametrize("limit", [SAME_PROCESS, OTHER_PROCESS], ids=["same process", "other process"])
async def test_who_follows_has_an_event_soon_although_nobody_looks(
    url: str, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    for name in ("_SECONDS_BETWEEN_READS", "_SECONDS_BETWEEN_READS_WITH_HINTS"):
        monkeypatch.setattr(feed, name, 3600.0)
    async with replica(url, "one") as one, replica(url, "other") as other, following(one) as pages:
        writer = one if limit == SAME_PROCESS else other
        seconds = [await one.seconds_until(writer, pages, f"g{number}") for number in range(NUMBER)]
    assert statistics.median(seconds) < limit, seconds


async def test_what_a_broken_connection_has_missed_is_found_by_looking_and_then_it_listens_again(url: str) -> None:
    operator = await asyncpg.connect(url)
    async with replica(url, "one") as one, replica(url, "other") as other, following(one) as pages:
        [listener] = await operator.fetch(LISTENERS)
        await operator.execute("SELECT pg_terminate_backend($1)", listener["pid"])
        await one.seconds_until(other, pages, "missed")
        while not await operator.fetch(LISTENERS):
            await asyncio.sleep(0)
        await one.seconds_until(other, pages, "after")
    await operator.close()


async def test_nobody_listens_where_nobody_follows(url: str) -> None:
    operator = await asyncpg.connect(url)
    async with replica(url, "one") as one:
        async with following(one):
            assert await operator.fetch(LISTENERS)
        while await operator.fetch(LISTENERS):
            await asyncio.sleep(0)
    await operator.close()


async def test_commits_of_a_moment_share_a_hint(url: str) -> None:
    operator, hints = await asyncpg.connect(url), list[object]()
    await operator.add_listener(CHANNEL, lambda *arguments: hints.append(arguments[3]))
    began = monotonic()
    async with replica(url, "one") as one:
        for number in range(50):
            await one.room.ledger.record([submit(f"g{number}")])
        while not hints:
            await asyncio.sleep(0)
    assert set(hints) == {"one"}
    assert len(hints) <= 2 + (monotonic() - began) / 0.1
    await operator.close()


async def test_there_are_no_hints_behind_a_transaction_pooler_and_on_sqlite(url: str, sqlite_url: str) -> None:
    for each in (f"{url}?pgbouncer=true", sqlite_url):
        async with open_ledger(each) as room:
            assert feed_hints(room.database, room.changes, name="one") is None
