"""A poller under pressure: late, full, unable to record, or told to stop."""

import asyncio
from typing import Any

from app.ledger.tables import generations
from app.polling.own_slots import Permit
from app.rivya.errors import RivyaRateLimited, RivyaUnauthorized
from app.sandbox.faults import ApiFault
from tests.polling_room import PollingRoom, Replica, most_in_any_second, open_polling

REVOKED = RivyaUnauthorized(401, "api_key_revoked")
HASTY = RivyaRateLimited(429, "rate_limited")


async def overdue(room: PollingRoom, replica: Replica, count: int) -> list[str]:
    tasks = await room.submit(replica, count)
    await replica.wait_until_due(tasks[0])
    return tasks


async def book(replica: Replica, count: int) -> list[Permit]:
    async with replica.database.transaction() as connection:
        opening = await replica.allowance.bookings.open(connection)
        permits = await replica.allowance.bookings.book(connection, opening, min(opening.room, count))
    replica.allowance.bookings.keep(permits)
    return permits


async def test_a_request_that_missed_its_slot_is_given_back_and_not_sent_late(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await overdue(room, replica, 1)
        await replica.poller.turn()
        room.clock.advance(seconds=3)
        await room.clock.run(replica.poller.idle())
        assert room.polled == []
        assert (await replica.row(task))["lease_until"] is None
        await replica.poll()
        assert room.polled == [task]


async def test_a_process_that_cannot_use_a_high_rate_books_wider_slots_until_it_can_again(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(rate=2000)
        widths = []
        for is_full in [True] * 41 + [False] * 200:
            [permit] = await book(replica, 1)
            widths.append(permit.width)
            reached = await room.clock.run(replica.allowance.bookings.reach(permit, is_full=lambda: is_full))  # noqa: B023
            assert (reached is None) == is_full
        assert widths == [1] * 41 + [2] * 200
        assert (await book(replica, 1))[0].width == 1


async def test_requests_that_are_late_take_the_next_slots_and_leave_at_the_rate(database_url: str) -> None:
    """Held up for a quarter of a second, then punctual: three slots have passed, so three find none in the end."""
    async with open_polling(database_url) as room:
        replica = await room.replica(rate=10)
        bookings = replica.allowance.bookings
        permits = await book(replica, 9)
        room.clock.advance(seconds=(permits[0].slot.at - room.clock.now()).total_seconds() + 0.25)
        reached = [await room.clock.run(bookings.reach(permit)) for permit in permits]
        assert [may_leave is not None for may_leave in reached] == [True] * 6 + [False] * 3
        assert await room.clock.run(bookings.reach((await book(replica, 1))[0])) is not None


async def test_who_was_late_and_still_waits_is_booked_for_with_the_next_claim(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(rate=10)
        bookings = replica.allowance.bookings
        permits = await book(replica, 2)
        room.clock.advance(seconds=(permits[1].slot.at - room.clock.now()).total_seconds())
        assert len(await book(replica, 1)) == 1  # nobody waits yet
        waiting = [asyncio.ensure_future(bookings.reach(permit)) for permit in [*permits, *permits]]
        await asyncio.sleep(0)
        assert len(await book(replica, 1)) == 3
        assert all(await asyncio.gather(*(room.clock.run(_of(task)) for task in waiting)))


async def test_a_request_whose_slot_passes_before_it_leaves_needs_another(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(rate=10)
        bookings = replica.allowance.bookings
        permits = await book(replica, 2)
        first = await room.clock.run(bookings.reach(permits[0]))
        assert first is not None
        room.clock.advance(seconds=0.11)
        assert first()
        assert not first()
        bookings.void()
        assert not first()


async def test_polls_are_claimed_ahead_while_others_are_under_way(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(most_at_once=1, most_ahead=3)
        await overdue(room, replica, 6)
        await replica.poller.turn()
        leased = [row for row in await replica.rows(generations) if row["lease_until"] is not None]
        assert len(leased) == 4
        await room.clock.run(replica.poller.idle())
        assert len(room.polls) == 4
        assert most_in_any_second(room.polls) <= 5


async def test_a_poll_claimed_ahead_that_finds_all_hands_full_is_given_back_and_no_more_are_claimed(
    database_url: str,
) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(most_at_once=1, most_ahead=2)
        await overdue(room, replica, 4)
        room.sandbox.faults.api.append(ApiFault(hang=60))
        room.clock.stands_still_while.clear()
        await replica.poller.turn()
        await room.clock.run(_until_given_back(replica))
        await room.clock.run(_until_asked(room))
        assert len(room.polls) == 1
        assert await replica.poller.turn() == 0.1
        leased = [row for row in await replica.rows(generations) if row["lease_until"] is not None]
        assert [row["id"] for row in leased] == room.polled
        await replica.poller.stop()


async def test_polls_claimed_ahead_are_given_back_at_a_stop(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(most_at_once=1, most_ahead=3)
        await overdue(room, replica, 4)
        await replica.poller.turn()
        await replica.poller.stop()
        assert room.polls == []
        assert [row["lease_until"] for row in await replica.rows(generations)] == [None] * 4


async def test_a_poller_with_all_hands_full_starts_no_more(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(most_at_once=2, most_ahead=0)
        await overdue(room, replica, 4)
        await replica.poller.turn()
        assert await replica.poller.turn() == 0.1
        await room.clock.run(replica.poller.idle())
        assert len(room.polls) == 2


async def test_an_outcome_that_could_not_be_recorded_is_asked_for_again(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await overdue(room, replica, 1)
        await room.sandbox.settle(task)
        await replica.batch.stop()
        await replica.poll()
        row = await replica.row(task)
        assert (row["status"], row["last_poll_error"]) == ("queued", "not_recorded overloaded")

        await replica.batch.start()
        assert await replica.wait_until_due(task) == 10
        await replica.poll()
        assert (await replica.row(task))["status"] == "succeeded"


async def test_a_poll_that_hangs_past_the_grace_of_a_stop_is_given_back(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await overdue(room, replica, 1)
        room.sandbox.faults.api.append(ApiFault(hang=60))
        await replica.poller.turn()
        await room.clock.run(_until_asked(room))
        await replica.poller.stop()
        row = await replica.row(task)
        assert (row["lease_until"], row["polls"], row["next_poll_at"]) == (None, 0, room.clock.now())


async def test_any_call_that_rivya_takes_ends_the_stop_of_a_refused_key(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        await replica.allowance.note(REVOKED)
        assert not (await replica.allowance.health()).ok
        await replica.allowance.note_success()
        assert (await replica.allowance.health()).ok


async def test_a_429_to_any_call_pauses_polling(database_url: str) -> None:
    async with open_polling(database_url) as room:
        one, other = await room.replica(), await room.replica()
        await overdue(room, one, 1)
        await one.allowance.note(HASTY)
        await other.poll()
        assert room.polls == []
        assert not await room.clock.run(other.allowance.take())
        assert "paused" in (await other.allowance.health()).detail


async def _until_asked(room: PollingRoom) -> None:
    while not room.polls:
        await asyncio.sleep(0)


async def _until_given_back(replica: Replica) -> None:
    """Until of all that was claimed only what is being asked for is left."""
    while len(replica.poller._tasks) > 1:
        await asyncio.sleep(0)


async def _of(task: "asyncio.Future[Any]") -> Any:
    return await task
