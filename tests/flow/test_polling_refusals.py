"""429 pauses every replica; 401 and 403 stop polling until a probe, a restart or another key finds it well."""

import asyncio

import pytest

from app.ratelimit.budget import PROBE_INTERVAL
from app.ratelimit.limiter import RateLimiter, Reservation
from app.sandbox.accounts import DEFAULT_KEY, Key
from app.sandbox.faults import ApiFault
from tests.support.polling_harness import PollingHarness, Replica, open_polling

PROBE_SECONDS = PROBE_INTERVAL.total_seconds()


async def many_overdue(room: PollingHarness, replica: Replica, count: int = 20) -> list[str]:
    tasks = await room.submit(replica, count)
    await replica.wait_until_due(tasks[0])
    return tasks


async def polls_within(room: PollingHarness, replica: Replica, *, seconds: float) -> int:
    """How many polls leave while this time passes, looking every second."""
    before = len(room.polls)
    until = room.clock.monotonic() + seconds
    while room.clock.monotonic() < until:
        await replica.poll()
        room.clock.advance(seconds=1)
    return len(room.polls) - before


@pytest.mark.parametrize(("retry_after", "pause"), [(30, 30), (None, 5)])
async def test_both_replicas_obey_a_429_that_one_of_them_got(
    database_url: str, retry_after: int | None, pause: int
) -> None:
    async with open_polling(database_url) as room:
        one, other = await room.replica(), await room.replica()
        await many_overdue(room, one)
        room.sandbox.faults.api.append(ApiFault(status=429, retry_after=retry_after, times=1))
        await one.poll()
        assert len(room.polls) == 1
        began = room.polls[0]

        assert await polls_within(room, other, seconds=pause - 2) == 0
        assert await polls_within(room, one, seconds=1) == 0
        await polls_within(room, other, seconds=3)
        assert len(room.polls) > 1
        assert room.polls[1] - began >= pause


async def test_what_was_leased_when_the_429_came_is_given_back_unsent(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        tasks = await many_overdue(room, replica, 4)
        room.sandbox.faults.api.append(ApiFault(status=429, retry_after=30, times=1))
        await replica.poll()
        assert len(room.polls) == 1
        rows = [await replica.row(task) for task in tasks]
        assert {(row["lease_until"], row["failures"], row["polls"]) for row in rows} == {(None, 0, 0)}
        assert all(row["next_poll_at"] <= room.clock.now() for row in rows)


async def test_a_block_that_another_replica_wrote_voids_what_this_one_has_reserved(database_url: str) -> None:
    async with open_polling(database_url) as room:
        one, other = await room.replica(), await room.replica()
        await many_overdue(room, one)
        reserved = await _reserved(one)
        room.sandbox.faults.api.append(ApiFault(status=429, retry_after=30, times=1))
        await other.poll()
        await _reserved(one)  # its next look at the budget
        assert [await room.clock.run(one.limiter.wait_for_slot(slot)) for slot in reserved] == [False] * len(reserved)


async def test_refusals_in_a_row_double_the_pause_and_an_answer_ends_that(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        await many_overdue(room, replica)
        room.sandbox.faults.api.append(ApiFault(status=429, times=3))
        await polls_within(room, replica, seconds=60)
        first, second, third, answered = room.polls[:4]
        assert [second - first, third - second, answered - third] == pytest.approx([5, 10, 20], abs=1.5)
        await polls_within(room, replica, seconds=2)

        room.sandbox.faults.api.append(ApiFault(status=429, times=1))
        await replica.make_due()
        await replica.poll()
        last = room.polls[-1]
        await polls_within(room, replica, seconds=10)
        assert next(at for at in room.polls if at > last) - last == pytest.approx(5, abs=1.5)


@pytest.mark.parametrize("revoked", [True, False])
async def test_a_refused_key_or_scope_stops_polling_but_for_a_probe_every_five_minutes(
    database_url: str, *, revoked: bool
) -> None:
    async with open_polling(database_url) as room:
        one, other = await room.replica(), await room.replica()
        await many_overdue(room, one)
        key = room.sandbox.keys[DEFAULT_KEY]
        key.revoked, key.scopes = revoked, () if not revoked else key.scopes
        await one.poll()
        assert len(room.polls) == 1
        await other.poll()  # its first look: it may have been started because the key is good now
        assert len(room.polls) == 2
        assert await polls_within(room, one, seconds=PROBE_SECONDS / 2) == 0
        assert await polls_within(room, other, seconds=PROBE_SECONDS / 2 - 10) == 0
        assert await polls_within(room, one, seconds=20) == 1
        assert await polls_within(room, other, seconds=60) == 0


async def test_the_operator_is_told_what_rivya_said_and_what_to_do(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        await many_overdue(room, replica)
        assert (await replica.limiter.health()).ok
        room.sandbox.keys[DEFAULT_KEY].revoked = True
        await replica.poll()
        finding = await replica.limiter.health()
        assert not finding.ok
        assert not finding.is_required
        assert "api_key_revoked" in finding.detail
        assert "RIVYA_API_KEY" in finding.detail
        assert DEFAULT_KEY not in finding.detail


async def test_a_probe_that_is_answered_resumes_polling_everywhere(database_url: str) -> None:
    async with open_polling(database_url) as room:
        one, other = await room.replica(), await room.replica()
        await many_overdue(room, one)
        room.sandbox.keys[DEFAULT_KEY].revoked = True
        await one.poll()
        await other.poll()
        room.sandbox.keys[DEFAULT_KEY].revoked = False
        room.clock.advance(seconds=PROBE_SECONDS)
        await one.poll()
        room.clock.advance(seconds=1)
        assert await polls_within(room, other, seconds=3) > 3
        assert (await other.limiter.health()).ok


async def test_a_restart_probes_at_once(database_url: str) -> None:
    async with open_polling(database_url) as room:
        stopped = await room.replica()
        await many_overdue(room, stopped)
        room.sandbox.keys[DEFAULT_KEY].revoked = True
        await stopped.poll()
        room.sandbox.keys[DEFAULT_KEY].revoked = False
        restarted = await room.replica()
        assert await polls_within(room, restarted, seconds=3) > 3


async def test_a_process_with_another_key_is_not_stopped(database_url: str) -> None:
    async with open_polling(database_url) as room:
        old = await room.replica()
        await many_overdue(room, old)
        room.sandbox.keys[DEFAULT_KEY].revoked = True
        await old.poll()
        room.sandbox.keys.add(Key("rvya_sk_new"))
        new = await room.replica(key="rvya_sk_new")
        assert await polls_within(room, new, seconds=3) > 3
        assert (await new.limiter.health()).ok
        assert not (await old.limiter.health()).ok
        assert await polls_within(room, old, seconds=3) == 0


async def test_other_calls_take_no_slot_while_the_key_is_refused_but_do_while_only_polls_are(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        await many_overdue(room, replica)
        key = room.sandbox.keys[DEFAULT_KEY]
        key.scopes = ()
        await replica.poll()
        assert await room.clock.run(replica.limiter.acquire())
        key.revoked = True
        room.clock.advance(seconds=PROBE_SECONDS)
        await replica.poll()
        assert not await room.clock.run(replica.limiter.acquire())


async def test_by_a_clock_that_stands_still_a_slot_is_reached_once_it_was_waited_for(database_url: str) -> None:
    async with open_polling(database_url) as room:

        async def pause(_seconds: float) -> None:
            """The time passes, and the clock does not see it."""

        replica = await room.replica()
        still = RateLimiter(replica.database, room.clock, rate=5, api_key=DEFAULT_KEY, pause=pause)
        async with asyncio.timeout(10):
            assert await still.acquire()


async def _reserved(replica: Replica) -> list[Reservation]:
    async with replica.database.transaction() as connection:
        budget = await replica.limiter.lock(connection)
        return await replica.limiter.reserve(connection, budget, min(budget.capacity, 2))
