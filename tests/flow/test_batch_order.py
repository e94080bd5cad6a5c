"""In which order a batch does its work, and that its loop is awake for what it waits for."""

import asyncio
import selectors
from collections.abc import Sequence

import pytest

from app.core.clock import SystemClock
from app.core.errors import ServiceError
from app.ledger.batch import Batch
from app.ledger.plan import Recorded
from app.ledger.report import Report
from tests.ledger import LedgerRoom, open_ledger
from tests.reports import webhook


class Told:
    """A sender in the express lane, with one list for all of what happens."""

    def __init__(self, happened: list[str]) -> None:
        self._happened = happened

    def done(self) -> bool:
        return False

    def set_result(self, recorded: Recorded, /) -> None:
        assert recorded.generation is not None
        self._happened.append(f"answered {recorded.generation.id}")

    def set_exception(self, error: ServiceError, /) -> None:
        raise error


class Ordered:
    """A ledger that tells when it is asked to do what."""

    def __init__(self, room: LedgerRoom, happened: list[str]) -> None:
        self._room = room
        self._happened = happened

    async def commit(self, reports: Sequence[Report]) -> list[Recorded]:
        self._happened += [f"began {report.generation_id}" for report in reports]
        return await self._room.ledger.commit(reports)

    def note(self, reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
        self._happened += [f"noted {report.generation_id}" for report in reports]
        self._room.ledger.note(reports, recorded)


async def test_what_was_committed_is_answered_then_the_next_is_begun_and_only_then_it_is_noted(
    database_url: str,
) -> None:
    async with open_ledger(database_url) as room:
        happened: list[str] = []
        batch = Batch(Ordered(room, happened), SystemClock(), most_at_once=1)
        for generation_id in ("one", "two"):
            batch.submit(webhook(generation_id, "succeeded"), Told(happened))
        await batch.start()
        await batch.stop()
        assert happened == [
            "began one", "answered one", "began two", "noted one", "answered two", "noted two",
        ], "and what came last is noted before it stops"  # fmt: skip


class Stuck:
    """A ledger whose commits never return."""

    def __init__(self) -> None:
        self.begun = 0

    async def commit(self, reports: Sequence[Report]) -> list[Recorded]:
        self.begun += 1
        await asyncio.Event().wait()
        raise AssertionError(reports)

    def note(self, reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
        """Never called."""


class Attentive(selectors.DefaultSelector):
    """Keeps for how long the loop would have slept."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float | None] = []

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.slept.append(timeout)
        return super().select(timeout)


@pytest.mark.parametrize(("size", "sleeps"), [(1, True), (20, False)])
def test_the_loop_does_not_sleep_while_a_second_batch_is_under_way(size: int, *, sleeps: bool) -> None:
    selector = Attentive()

    async def record() -> None:
        stuck = Stuck()
        batch = Batch(stuck, SystemClock(), writers=2, behind_another=3600)
        await batch.start()
        batch.submit(webhook("first", "succeeded"), Told([]))
        for _ in range(3):
            await asyncio.sleep(0)
        for n in range(size):
            batch.submit(webhook(f"g{n}", "succeeded"), Told([]))
        for _ in range(3):
            await asyncio.sleep(0)
        assert stuck.begun == (1 if sleeps else 2)
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(0.002, over.set)
        selector.slept.clear()
        await over.wait()

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(record())
    assert any(timeout is None or timeout > 0 for timeout in selector.slept) is sleeps
