"""Killed, or without a database, anywhere between sending and recording: paid once, and known in the end."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from app.core.migrations import migrate
from app.ledger.decide import Recorded
from app.ledger.models import Report
from app.ledger.tables import generations
from app.sandbox.faults import ApiFault
from tests.support.clock import NOON, ManualClock
from tests.support.postgres import PostgresCluster
from tests.support.submission_harness import LEASE_SECONDS, code_of, eventually, open_submission, serve_manually


class Stuck:
    """A ledger whose commit never comes."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def commit(self, reports: Sequence[Report]) -> list[Recorded]:
        self.reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    def note(self, reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
        raise AssertionError


def later() -> ManualClock:
    clock = ManualClock(NOON)
    clock.advance(seconds=LEASE_SECONDS)
    return clock


async def test_killed_while_rivya_works_it_is_resolved_by_the_next_process(database_url: str) -> None:
    async with serve_manually() as rivya:
        async with open_submission(database_url, rivya) as killed:
            killed.sandbox.faults.api = [ApiFault(when="after", hang=1, times=1)]
            caller = asyncio.create_task(killed.create())
            await eventually(lambda: killed.charged() == 1)
            await killed.abandon()
            await asyncio.gather(caller, return_exceptions=True)
            stored = await killed.submission()
            assert (stored["state"], stored["is_final"]) == ("sending", 0)
        async with open_submission(database_url, rivya) as early:
            await early.retrier.run_once()
            assert early.calls == 1, "the lease has not run out"
        async with open_submission(database_url, rivya, clock=later()) as fresh:
            await fresh.retrier.run_once()
            assert (fresh.calls, fresh.charged()) == (2, 1)
            assert (await fresh.generation())["status"] == "queued"
            assert (await fresh.create()).headers["Idempotency-Replayed"] == "true"


async def test_killed_between_the_answer_and_the_record_it_is_paid_once(database_url: str) -> None:
    stuck = Stuck()
    async with serve_manually() as rivya:
        async with open_submission(database_url, rivya, recorder=stuck) as killed:
            caller = asyncio.create_task(killed.create())
            await stuck.reached.wait()
            await killed.abandon()
            await asyncio.gather(caller, return_exceptions=True)
            for task in killed.batch._tasks:
                task.cancel()
            await asyncio.gather(*killed.batch._tasks, return_exceptions=True)
            killed.batch._tasks = []
            assert await killed.room.rows(generations) == []
        async with open_submission(database_url, rivya, clock=later()) as fresh:
            await fresh.retrier.run_once()
            assert (fresh.charged(), (await fresh.submission())["state"]) == (1, "accepted")
            assert (await fresh.generation())["status"] == "queued"


async def test_an_answer_that_the_ledger_cannot_take_is_recorded_later(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        await room.batch.stop()
        answer = await room.create()
        assert (answer.status_code, code_of(answer)) == (503, "not_recorded")
        assert answer.headers["Idempotency-Key"] == "key-1"
        await room.batch.start()
        room.clock.advance(seconds=5)
        await room.retrier.run_once()
        assert ((await room.create()).status_code, room.charged()) == (200, 1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    with PostgresCluster() as running:
        yield running


async def test_a_database_that_goes_away_after_rivya_accepted_loses_nothing(cluster: PostgresCluster) -> None:
    url = cluster.url("postgres")
    await migrate(url)
    async with serve_manually() as rivya, open_submission(url, rivya) as room:
        room.sandbox.faults.api = [ApiFault(when="after", hang=1, times=1)]
        caller = asyncio.create_task(room.create())
        await eventually(lambda: room.charged() == 1)
        cluster.stop("immediate")
        await room.sandbox.advance(1)
        answer = await caller
        assert (answer.status_code, code_of(answer)) == (503, "not_recorded")
        unwritten = await room.create(key="key-2")
        assert (unwritten.status_code, code_of(unwritten)) == (503, "database_unavailable")
        assert unwritten.headers["Idempotency-Key"] == "key-2"
        cluster.start()
        room.clock.advance(seconds=LEASE_SECONDS)
        await room.retrier.run_once()
        assert ((await room.submission())["state"], room.charged(), room.calls) == ("accepted", 1, 2)
        assert (await room.generation())["status"] == "queued"
