"""A caller who waits without a task: told once, and never something older than what woke it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.api.waiting import GenerationsById, LongPollWaiter, ReadCoalescer, generation_in
from app.core.waiters import Waiters
from app.ledger.models import Generation, Status, Tracking
from tests.support.clock import NOON

OPEN = Generation(id="g", status=Status.QUEUED, first_seen_at=NOON, tracking=Tracking.WATCHING)
SETTLED = replace(OPEN, status=Status.SUCCEEDED, tracking=Tracking.SETTLED, settled_at=NOON)
LONG = 3600.0


class Scene:
    """A record that answers when it is let to, and a caller who waits for what is in it."""

    def __init__(self, *, seconds: float = LONG, is_known: bool = True) -> None:
        self.record: Generation | None = OPEN if is_known else None
        self.reads = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.is_broken = False
        self.changes = Waiters()
        self.stopping = asyncio.Event()
        self.delivered: list[Generation | None] = []
        shared = self.shared = ReadCoalescer(self.read)
        self.waiter = LongPollWaiter(
            "g", seconds, self.deliver, reads=shared, changes=self.changes, stopping=self.stopping
        )

    def deliver(self, answer: asyncio.Future[GenerationsById] | None) -> None:
        self.delivered.append(generation_in(answer, "g") if answer is not None else None)

    async def read(self, _ids: Sequence[str]) -> dict[str, Generation]:
        self.reads += 1
        record = self.record
        await self.may_answer.wait()
        if self.is_broken:
            raise LookupError
        return {} if record is None else {"g": record}

    async def settle(self) -> None:
        self.record = SETTLED
        self.changes.wake("g")
        await turns()

    def is_over(self, *expected: Generation | None) -> bool:
        return self.delivered == list(expected) and self.changes.waited_for == []


async def turns() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def test_an_outcome_is_told_once_it_is_there() -> None:
    scene = Scene()
    await turns()
    assert (scene.delivered, scene.changes.waited_for) == ([], ["g"])
    await scene.settle()
    assert scene.is_over(SETTLED)
    scene.changes.wake("g")
    await turns()
    assert scene.is_over(SETTLED)


async def test_a_change_that_settles_nothing_goes_on_waiting() -> None:
    scene = Scene()
    await turns()
    scene.changes.wake("g")
    await turns()
    assert (scene.delivered, scene.reads) == ([], 2)


async def test_a_look_that_had_begun_before_the_change_is_followed_by_another() -> None:
    scene = Scene()
    scene.may_answer.clear()
    await turns()
    await scene.settle()
    assert scene.reads == 1
    scene.may_answer.set()
    await turns()
    assert scene.is_over(SETTLED)
    assert scene.reads == 2


async def test_when_the_time_is_over_what_is_known_then_is_told() -> None:
    scene = Scene(seconds=0)
    async with asyncio.timeout(5):
        while not scene.delivered:
            await asyncio.sleep(0)
    assert scene.is_over(OPEN)
    assert scene.reads == 2


async def test_what_is_not_known_or_cannot_be_read_is_told_at_once() -> None:
    unknown = Scene(is_known=False)
    await turns()
    assert unknown.is_over(None)
    broken = Scene()
    broken.is_broken = True
    await turns()
    assert broken.is_over(None)


async def test_a_stop_tells_what_is_known_without_another_look() -> None:
    scene = Scene()
    await turns()
    scene.stopping.set()
    scene.changes.wake("g")
    assert scene.is_over(OPEN)
    late = Scene()
    late.stopping.set()
    await turns()
    assert late.is_over(OPEN)
    assert (scene.reads, late.reads) == (1, 1)


async def test_a_stop_while_it_looks_waits_for_that_look() -> None:
    scene = Scene()
    scene.may_answer.clear()
    await turns()
    scene.stopping.set()
    scene.changes.wake("g")
    assert scene.delivered == []
    scene.may_answer.set()
    await turns()
    assert scene.is_over(OPEN)


async def test_who_leaves_waits_no_more_and_is_kept_by_nothing() -> None:
    scene = Scene()
    await turns()
    scene.waiter.leave()
    assert scene.is_over(None)
    scene.waiter.leave()
    scene.waiter.set()
    await turns()
    assert scene.is_over(None)
    assert scene.reads == 1


async def test_who_leaves_while_it_looks_is_told_no_more() -> None:
    scene = Scene()
    scene.may_answer.clear()
    await turns()
    scene.waiter.leave()
    scene.may_answer.set()
    await turns()
    assert scene.is_over(None)


async def test_a_look_that_cannot_begin_ends_the_wait_and_wakes_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    await turns()
    monkeypatch.setattr(scene.shared, "request", None)
    scene.changes.wake("g")
    assert scene.is_over(None)


async def test_an_answer_that_makes_no_sense_ends_the_wait() -> None:
    scene = Scene()
    scene.record = NOON  # type: ignore[assignment]
    await turns()
    assert scene.is_over(None)
