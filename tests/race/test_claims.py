"""Replicas share the work and the budget: no generation is asked for twice, no second sees more than the rate."""

import asyncio
import itertools
from datetime import timedelta

import pytest

from app.ledger.models import NextPoll, Tracking
from app.ledger.tables import generations
from app.polling import poller
from app.polling.claims import LEASE
from tests.support.clock import NOON
from tests.support.polling_harness import PollingHarness, Replica, most_in_any_second, open_polling
from tests.support.reports import webhook

RATE = 50.0


async def overdue(room: PollingHarness, replica: Replica, count: int) -> list[str]:
    tasks = await room.submit(replica, count)
    await replica.wait_until_due(tasks[0])
    return tasks


async def test_two_pollers_never_ask_for_the_same_generation(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replicas = [await room.replica(rate=RATE), await room.replica(rate=RATE)]
        tasks = await overdue(room, replicas[0], 60)
        while len(room.polled) < len(tasks):
            await asyncio.gather(*(replica.poller.run_once() for replica in replicas))
            for replica in replicas:
                await room.clock.run(replica.poller.idle())
            room.clock.advance(seconds=0.5)
        assert sorted(room.polled) == sorted(tasks)


async def test_claims_made_at_the_same_moment_are_disjoint_and_their_slots_too(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replicas = [await room.replica(rate=RATE) for _ in range(4)]
        tasks = await overdue(room, replicas[0], 100)
        claims = await asyncio.gather(*(replica.claims.claim(10) for replica in replicas for _ in range(2)))
        claimed = [one for claim in claims for one in claim]
        ids = [one.lease.generation_id for one in claimed]
        assert len(set(ids)) == len(ids) > 10
        assert set(ids) <= set(tasks)
        slots = sorted(one.reservation.at for one in claimed)
        gaps = [later - sooner for sooner, later in itertools.pairwise(slots)]
        assert min(gaps) >= timedelta(seconds=1 / RATE)


@pytest.mark.parametrize("rate", [5, 20])
async def test_two_replicas_together_keep_the_rate_in_every_second_and_use_it(database_url: str, rate: int) -> None:
    async with open_polling(database_url) as room:
        replicas = [await room.replica(rate=rate), await room.replica(rate=rate)]
        await overdue(room, replicas[0], 6 * rate)
        while len(room.polls) < 5 * rate:
            pauses = await asyncio.gather(*(replica.poller.run_once() for replica in replicas))
            await room.clock.run(room.clock.pause(min(pauses)))
        await room.clock.run(_all_idle(replicas))
        polls = room.polls[: 5 * rate]
        assert most_in_any_second(room.polls) <= rate
        assert len(polls) - 1 >= 0.95 * rate * (polls[-1] - polls[0])


async def test_other_calls_take_their_slots_between_the_polls(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        await overdue(room, replica, 20)
        taken = []
        for _ in range(10):
            await replica.poller.run_once()
            if await room.clock.run(replica.limiter.acquire()):
                taken.append(room.clock.monotonic())
            await room.clock.run(replica.poller.idle())
        assert len(taken) >= 3
        assert most_in_any_second(sorted([*room.polls, *taken])) <= 5


async def test_who_comes_back_at_once_gets_no_second_slot(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        assert await room.clock.run(replica.limiter.acquire())
        assert not await room.clock.run(replica.limiter.acquire())
        room.clock.advance(seconds=1)
        assert await room.clock.run(replica.limiter.acquire())


async def test_a_killed_pollers_work_is_due_again_when_its_lease_runs_out(database_url: str) -> None:
    async with open_polling(database_url) as room:
        killed, other = await room.replica(), await room.replica()
        [task] = await overdue(room, killed, 1)
        assert len(await killed.claims.claim(5)) == 1
        room.clock.advance(seconds=LEASE.total_seconds() - 1)
        await other.poll()
        assert room.polled == []
        room.clock.advance(seconds=1)
        await other.poll()
        assert room.polled == [task]


async def test_a_poller_that_stops_gives_its_leases_back_at_once(database_url: str) -> None:
    async with open_polling(database_url) as room:
        stopping, other = await room.replica(), await room.replica()
        tasks = await overdue(room, stopping, 4)
        await stopping.poller.run_once()
        assert all([(await other.row(task))["lease_until"] for task in tasks])
        await stopping.poller.stop()
        assert room.polled == []
        room.clock.advance(seconds=1)
        await other.poll()
        assert sorted(room.polled) == sorted(tasks)


async def test_what_was_learnt_under_an_older_lease_is_not_written(database_url: str) -> None:
    async with open_polling(database_url) as room:
        slow, other = await room.replica(), await room.replica()
        await overdue(room, slow, 1)
        [old] = await slow.claims.claim(1)
        room.clock.advance(seconds=LEASE.total_seconds())
        [new] = await other.claims.claim(1)
        book = slow.claims
        assert (
            await book.record_poll_failures([poller.failed(old.lease, NextPoll(NOON, Tracking.STALLED), "late")]) == []
        )
        row = await slow.row(new.lease.generation_id)
        assert (row["lease_until"], row["polls"], row["tracking"]) == (new.lease.lease_until, 0, "watching")


async def test_a_callback_that_arrives_during_a_failing_poll_stands(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await overdue(room, replica, 1)
        [claimed] = await replica.claims.claim(1)
        await replica.ledger.record([webhook(task, "succeeded", at=room.clock.now())])
        lost = poller.not_found(claimed.lease, NextPoll(None, Tracking.LOST), "not_found", now=room.clock.now())
        assert await replica.claims.record_poll_failures([lost]) == []
        assert (await replica.row(task))["tracking"] == "settled"


async def test_failures_noted_while_the_same_generations_are_recorded_do_not_deadlock(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica, other = await room.replica(rate=RATE), await room.replica(rate=RATE)
        tasks = await overdue(room, replica, 40)
        claimed = await replica.claims.claim(40)
        book = replica.claims
        backwards = [poller.given_back(one.lease, room.clock.now()) for one in reversed(claimed)]
        reports = [webhook(task, "succeeded", at=room.clock.now()) for task in tasks]
        await asyncio.gather(book.record_poll_failures(backwards), other.ledger.record(reports))
        assert {row["tracking"] for row in await replica.rows(generations)} == {"settled"}


async def _all_idle(replicas: list[Replica]) -> None:
    for replica in replicas:
        await replica.poller.idle()
