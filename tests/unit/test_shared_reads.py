"""Reads asked for at once are one; a read that has begun is joined by nobody."""

import asyncio
from collections.abc import Sequence

import pytest

from app.api.waiting import ReadCoalescer
from app.core.errors import DatabaseUnavailable
from app.ledger.models import Generation, Status, Tracking
from tests.support.clock import NOON


class Record:
    """Knows one generation, and answers when it is let to."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.polls = 0
        self.may_answer = asyncio.Event()
        self.is_broken = False
        self.failure: BaseException = LookupError()

    async def read(self, ids: Sequence[str]) -> dict[str, Generation]:
        self.asked.append(list(ids))
        generation = Generation(
            id="g", status=Status.QUEUED, first_seen_at=NOON, tracking=Tracking.WATCHING, polls=self.polls
        )
        await self.may_answer.wait()
        if self.is_broken:
            raise self.failure
        return {"g": generation}


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_asked_at_once_is_one_read() -> None:
    record = Record()
    reads = ReadCoalescer(record.read)
    record.may_answer.set()
    generations = await asyncio.gather(*(reads.generation(key) for key in ("g", "h", "g", "g")))
    assert record.asked == [["g", "h"]]
    assert [item is not None for item in generations] == [True, False, True, True]


async def test_a_read_that_has_begun_is_not_joined() -> None:
    record = Record()
    reads = ReadCoalescer(record.read)
    early = asyncio.create_task(reads.generation("g"))
    await turns()
    record.polls = 1  # what the early one is about to be told is old by now
    late = asyncio.create_task(reads.generation("g"))
    await turns()
    record.may_answer.set()
    generations = [await early, await late]
    assert [item.polls for item in generations if item is not None] == [0, 1]


async def test_one_that_gives_up_leaves_the_others_their_answer() -> None:
    record = Record()
    reads = ReadCoalescer(record.read)
    leaving, staying = (asyncio.create_task(reads.generation("g")) for _ in range(2))
    await turns()
    leaving.cancel()
    await turns()
    record.may_answer.set()
    assert await staying is not None


async def test_a_failure_reaches_everybody_and_ends_there() -> None:
    record = Record()
    reads = ReadCoalescer(record.read)
    record.is_broken = True
    record.may_answer.set()
    for answer in await asyncio.gather(*(reads.generation("g") for _ in range(3)), return_exceptions=True):
        assert isinstance(answer, LookupError)
    record.is_broken = False
    assert await reads.generation("g") is not None


async def test_a_failure_that_nobody_waits_for_is_no_accident(caplog: pytest.LogCaptureFixture) -> None:
    record = Record()
    reads = ReadCoalescer(record.read)
    record.is_broken = True
    leaving = asyncio.create_task(reads.generation("g"))
    await turns()
    leaving.cancel()
    record.may_answer.set()
    await turns()
    assert caplog.records == []


async def test_a_query_that_is_cancelled_leaves_nobody_waiting() -> None:
    record = Record()
    reads = ReadCoalescer(record.read, most_at_once=1)
    record.is_broken, record.failure = True, asyncio.CancelledError()
    asking = asyncio.create_task(reads.generation("g"))
    record.may_answer.set()
    async with asyncio.timeout(5):
        with pytest.raises(DatabaseUnavailable):
            await asking
    record.is_broken = False
    assert await reads.generation("g") is not None
