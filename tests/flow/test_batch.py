"""Group commit: nothing is answered before its commit, and one poisoned report does not hold up the others."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.core.clock import SystemClock
from app.core.errors import DatabaseUnavailable, Overloaded, ServiceError
from app.ledger.decide import Recorded
from app.ledger.models import Outcome, Report
from app.ledger.recorder import RecordFailed
from app.ledger.tables import deliveries, generations
from app.ledger.write_queue import WriteQueue
from tests.support.ledger_harness import LedgerHarness, open_ledger
from tests.support.reports import status_claim, webhook


def poisoned(generation_id: str) -> Report:
    """A claim that no database takes: its status is none of the four words, as a bug of ours might let through."""
    return replace(webhook(generation_id, "succeeded"), claim=status_claim(generation_id, "exploded"))


async def test_a_poisoned_report_is_isolated_and_the_others_are_recorded(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        batch = WriteQueue(room.ledger, SystemClock())
        good = [asyncio.create_task(batch.record(webhook(f"g{n}", "succeeded"))) for n in range(10)]
        bad = asyncio.create_task(batch.record(poisoned("bad")))
        await asyncio.sleep(0)  # all of them are waiting before the first commit begins
        await batch.start()
        assert {item.outcome for item in await asyncio.gather(*good)} == {Outcome.APPLIED}
        with pytest.raises(RecordFailed):
            await bad
        await batch.stop()
        assert len(await room.rows(generations)) == 10


async def test_where_a_whole_batch_is_refused_none_of_it_is_at_fault(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        batch = WriteQueue(room.ledger, SystemClock())
        together = [asyncio.create_task(batch.record(poisoned(f"bad{n}"))) for n in range(2)]
        await asyncio.sleep(0)  # both are waiting before the first commit begins
        await batch.start()
        for refused in together:
            with pytest.raises(DatabaseUnavailable):
                await refused
        with pytest.raises(RecordFailed):
            await batch.record(poisoned("alone"))
        await batch.stop()
        assert await room.rows(generations) == []


class Untellable:
    """Somebody whose connection breaks in the moment of the answer."""

    def done(self) -> bool:
        return False

    def set_result(self, recorded: Recorded, /) -> None:
        raise RuntimeError

    def set_exception(self, error: ServiceError, /) -> None:
        raise RuntimeError


async def test_who_can_not_be_told_any_more_stops_nobody_elses_answer(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        batch = WriteQueue(room.ledger, SystemClock())
        await batch.start()
        for attempt in range(3):
            batch.enqueue(webhook(f"left{attempt}", "succeeded"), Untellable())
            batch.enqueue(poisoned(f"bad{attempt}"), Untellable())
            assert (await batch.record(webhook(f"g{attempt}", "succeeded"))).outcome is Outcome.APPLIED
        await batch.stop()
        assert len(await room.rows(generations)) == 6


class Unnoted:
    """A ledger that can't tell anybody of what it has committed."""

    def __init__(self, room: LedgerHarness) -> None:
        self._room = room

    async def commit(self, reports: Sequence[Report]) -> list[Recorded]:
        return await self._room.ledger.commit(reports)

    def note(self, reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
        raise RuntimeError


async def test_what_goes_wrong_after_the_commit_does_not_end_the_writer(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        batch = WriteQueue(Unnoted(room), SystemClock())
        await batch.start()
        for n in range(3):
            assert (await batch.record(webhook(f"g{n}", "succeeded"))).outcome is Outcome.APPLIED
        await batch.stop()
        assert len(await room.rows(generations)) == 3


class Short:
    """A ledger that, so many times, commits and then returns one answer too few."""

    def __init__(self, room: LedgerHarness, times: int) -> None:
        self._room = room
        self.times = times

    async def commit(self, reports: Sequence[Report]) -> list[Recorded]:
        recorded = await self._room.ledger.commit(reports)
        self.times -= 1
        return recorded[:-1] if self.times >= 0 else recorded

    def note(self, reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
        self._room.ledger.note(reports, recorded)


@pytest.mark.parametrize("writers", [1, 2])
async def test_an_error_outside_of_the_commit_is_answered_and_ends_no_writer(database_url: str, writers: int) -> None:
    async with open_ledger(database_url) as room:
        batch = WriteQueue(Short(room, 4), SystemClock(), writers=writers)
        await batch.start()
        async with asyncio.timeout(9):  # less than anybody waits for a commit
            for n in range(4):
                with pytest.raises(DatabaseUnavailable):
                    await batch.record(webhook(f"g{n}", "succeeded"))
            assert (await batch.record(webhook("g", "succeeded"))).outcome is Outcome.APPLIED
            assert (await batch.record(webhook("g0", "succeeded"))).is_duplicate
        assert all(finding.ok for finding in await batch.health_checks())
        await batch.stop()
        assert len(await room.rows(generations)) == 5


async def test_a_queue_whose_writer_fails_each_time_is_down_and_can_be_stopped(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        batch = WriteQueue(Short(room, 10**9), SystemClock())
        await batch.start()
        for n in range(3):
            with pytest.raises(DatabaseUnavailable):
                await batch.record(webhook(f"g{n}", "succeeded"))
        [finding] = await batch.health_checks()
        assert (finding.name, finding.ok, finding.is_required) == ("write_queue", False, True)
        assert "batch-0" in finding.detail
        left = asyncio.create_task(batch.record(webhook("left", "succeeded")))
        await asyncio.sleep(0)
        await batch.stop()
        with pytest.raises(DatabaseUnavailable):
            await left


class Gate:
    """A ledger whose commits wait until the test lets them."""

    def __init__(self, room: LedgerHarness) -> None:
        self._room = room
        self.sizes: list[int] = []
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def commit(self, reports: Sequence[Report]) -> list[Recorded]:
        self.sizes.append(len(reports))
        self.reached.set()
        await self.open.wait()
        return await self._room.ledger.commit(reports)

    def note(self, reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
        self._room.ledger.note(reports, recorded)


async def test_what_arrives_during_a_commit_goes_into_the_next_one_together(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        gate = Gate(room)
        batch = WriteQueue(gate, SystemClock())
        await batch.start()
        tasks = [asyncio.create_task(batch.record(webhook("first", "succeeded")))]
        await gate.reached.wait()
        tasks += [asyncio.create_task(batch.record(webhook(f"g{n}", "succeeded"))) for n in range(30)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks), "nothing is answered before its commit"
        gate.open.set()
        await asyncio.gather(*tasks)
        await batch.stop()
        assert gate.sizes == [1, 30]
        assert len(await room.rows(deliveries)) == 31


async def test_a_writer_does_not_wait_for_what_still_arrives(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        gate = Gate(room)
        batch = WriteQueue(gate, SystemClock())
        await batch.start()
        tasks: list[asyncio.Task[Recorded]] = []

        def arrive(following: int) -> None:
            """One in each turn of the loop."""
            tasks.append(asyncio.create_task(batch.record(webhook(f"g{following}", "succeeded"))))
            if following > 0:
                asyncio.get_running_loop().call_soon(arrive, following - 1)

        arrive(9)
        await gate.reached.wait()
        assert len(tasks) < 10
        assert gate.sizes == [1]
        while len(tasks) < 10:
            await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(*tasks)
        await batch.stop()
        assert gate.sizes == [1, 9]


async def test_more_than_the_queue_holds_is_refused_at_once(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        gate = Gate(room)
        batch = WriteQueue(gate, SystemClock(), most_waiting=5)
        waiting = [asyncio.create_task(batch.record(webhook(f"g{n}", "succeeded"))) for n in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batch.record(webhook("g6", "succeeded"))
        gate.open.set()
        await batch.start()
        await asyncio.gather(*waiting)
        await batch.stop()


async def test_more_bytes_than_the_queue_holds_are_refused_until_they_are_recorded(sqlite_url: str) -> None:
    async with open_ledger(sqlite_url) as room:
        gate = Gate(room)
        batch = WriteQueue(gate, SystemClock(), most_bytes=1)
        alone = asyncio.create_task(batch.record(webhook("g", "succeeded")))  # larger than the queue, so on its own
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batch.record(webhook("other", "succeeded"))
        await batch.start()
        await gate.reached.wait()
        with pytest.raises(Overloaded):
            await batch.record(webhook("other", "succeeded"))
        gate.open.set()
        await alone
        await asyncio.sleep(0)
        await batch.record(webhook("other", "succeeded"))
        await batch.stop()


async def test_a_commit_that_takes_too_long_is_not_waited_for_but_still_stands(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        gate = Gate(room)
        batch = WriteQueue(gate, SystemClock(), patience=0.01)
        await batch.start()
        with pytest.raises(DatabaseUnavailable):
            await batch.record(webhook("g", "succeeded"))
        gate.open.set()
        await batch.stop()
        assert len(await room.rows(deliveries)) == 1


async def test_stopping_records_what_is_waiting(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        batch = WriteQueue(room.ledger, SystemClock())
        tasks = [asyncio.create_task(batch.record(webhook(f"g{n}", "succeeded"))) for n in range(3)]
        await asyncio.sleep(0)
        await batch.start()
        await batch.stop()
        assert all(item.outcome is Outcome.APPLIED for item in await asyncio.gather(*tasks))
        with pytest.raises(Overloaded):
            await batch.record(webhook("late", "succeeded"))


async def test_a_database_that_is_away_fails_all_of_a_batch_as_unavailable() -> None:
    room = LedgerHarness("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    batch = WriteQueue(room.ledger, SystemClock())
    await batch.start()
    with pytest.raises(DatabaseUnavailable):
        await batch.record(webhook("g", "succeeded"))
    await batch.stop()
    await room.database.dispose()


async def test_a_second_batch_begins_beside_the_first_and_a_third_waits_for_one_of_them(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        gate = Gate(room)
        batch = WriteQueue(gate, SystemClock(), writers=2)
        await batch.start()
        tasks: list[asyncio.Task[Recorded]] = []
        for size in (1, 20, 5):
            tasks += [asyncio.create_task(batch.record(webhook(f"{size}-{n}", "succeeded"))) for n in range(size)]
            for _ in range(5):
                await asyncio.sleep(0)
        assert gate.sizes == [1, 20]
        gate.open.set()
        await asyncio.gather(*tasks)
        await batch.stop()
        assert gate.sizes == [1, 20, 5]
        assert len(await room.rows(deliveries)) == 26


async def let_come(batch: WriteQueue, *sizes: int) -> list[asyncio.Task[Recorded]]:
    """Let so many reports come together, one group after another."""
    tasks: list[asyncio.Task[Recorded]] = []
    for size in sizes:
        tasks += [asyncio.create_task(batch.record(webhook(f"{size}-{n}", "succeeded"))) for n in range(size)]
        for _ in range(5):
            await asyncio.sleep(0)
    return tasks


async def test_fewer_than_are_being_recorded_wait_for_its_end(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        gate = Gate(room)
        batch = WriteQueue(gate, SystemClock(), writers=2, few_after=60)
        await batch.start()
        tasks = await let_come(batch, 10, 9)
        assert gate.sizes == [10]
        gate.open.set()
        await asyncio.gather(*tasks)
        await batch.stop()
        assert gate.sizes == [10, 9]


async def test_as_many_as_are_being_recorded_do_not_wait(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        gate = Gate(room)
        batch = WriteQueue(gate, SystemClock(), writers=2, few_after=60)
        await batch.start()
        tasks = await let_come(batch, 10, 9, 1)
        assert gate.sizes == [10, 10]
        gate.open.set()
        await asyncio.gather(*tasks)
        await batch.stop()


async def test_a_few_do_not_wait_long_for_a_batch_that_is_held_up(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        gate = Gate(room)
        batch = WriteQueue(gate, SystemClock(), writers=2)
        await batch.start()
        tasks = await let_come(batch, 10)
        gate.reached.clear()
        tasks += await let_come(batch, 3)
        async with asyncio.timeout(10):
            await gate.reached.wait()
        assert gate.sizes == [10, 3]
        gate.open.set()
        await asyncio.gather(*tasks)
        await batch.stop()


async def test_a_few_that_wait_are_recorded_before_the_queue_stops(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        gate = Gate(room)
        batch = WriteQueue(gate, SystemClock(), writers=2, few_after=60)
        await batch.start()
        tasks = await let_come(batch, 10, 3)
        gate.open.set()
        await batch.stop()
        assert len(await asyncio.gather(*tasks)) == 13
