"""A poller under pressure: late, full, unable to record, or told to stop."""

import asyncio
import ssl
from pathlib import Path

import pytest
from sqlalchemy import event

from app.ledger.tables import generations
from app.ratelimit.limiter import Reservation
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaRateLimited, RivyaUnauthorized
from app.sandbox.accounts import DEFAULT_KEY
from app.sandbox.faults import ApiFault
from tests.support.certificates import write_certificate
from tests.support.polling_harness import PATIENT, PollingHarness, Replica, most_in_any_second, open_polling

REVOKED = RivyaUnauthorized(401, "api_key_revoked")
HASTY = RivyaRateLimited(429, "rate_limited")


async def overdue(room: PollingHarness, replica: Replica, count: int) -> list[str]:
    tasks = await room.submit(replica, count)
    await replica.wait_until_due(tasks[0])
    return tasks


async def reserve(replica: Replica, count: int) -> list[Reservation]:
    async with replica.database.transaction() as connection:
        budget = await replica.limiter.lock(connection)
        return await replica.limiter.reserve(connection, budget, min(budget.capacity, count))


async def test_a_request_that_missed_its_slot_is_given_back_and_not_sent_late(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await overdue(room, replica, 1)
        await replica.poller.run_once()
        room.clock.advance(seconds=3)
        await room.clock.run(replica.poller.idle())
        assert room.polled == []
        assert (await replica.row(task))["lease_until"] is None
        await replica.poll()
        assert room.polled == [task]


async def test_slots_that_passed_while_a_process_stalled_are_dropped_and_the_others_kept(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(rate=10)
        reserved = await reserve(replica, 9)
        room.clock.advance(seconds=(reserved[2].until - room.clock.now()).total_seconds() + 0.001)
        sent = [await room.clock.run(replica.limiter.wait_for_slot(slot)) for slot in reserved]
        assert sent == [False] * 3 + [True] * 6


async def test_a_request_whose_slot_passes_before_it_leaves_is_not_sent(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(rate=10)
        first, second = await reserve(replica, 2)
        assert await room.clock.run(replica.limiter.wait_for_slot(first))
        room.clock.advance(seconds=0.041)
        assert not await room.clock.run(replica.limiter.wait_for_slot(first))
        assert await room.clock.run(replica.limiter.wait_for_slot(second))
        replica.limiter.cancel_all()
        assert not await room.clock.run(replica.limiter.wait_for_slot(second))


@pytest.mark.parametrize("is_poll", [False, True], ids=["call", "poll"])
@pytest.mark.parametrize(("late", "is_sent"), [(1, True), (3, False)])
async def test_a_slot_that_passes_while_it_is_committed_is_followed_by_another_for_two_seconds(
    database_url: str, late: int, is_sent: bool, is_poll: bool
) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        seconds = iter([0.9] * late)
        engine = replica.database.engine.sync_engine
        event.listen(engine, "commit", lambda _: room.clock.advance(seconds=next(seconds, 0)))
        acquire = replica.limiter.acquire_for_poll if is_poll else replica.limiter.acquire
        assert await room.clock.run(acquire()) is is_sent


async def test_a_request_during_whose_wait_the_clock_is_set_back_is_not_sent(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(rate=2)
        _, second = await reserve(replica, 2)
        waiting = asyncio.create_task(replica.limiter.wait_for_slot(second))
        await asyncio.sleep(0)
        room.clock.step(seconds=-20)
        assert not await room.clock.run(waiting)
        assert room.clock.now() < second.at


@pytest.mark.parametrize(("handshake", "rate", "number"), [(0.06, 5, 2), (1.5, 5, 2), (1.5, 0.1, 1)])
async def test_a_connection_that_opens_slowly_does_not_keep_a_generation_from_being_polled(
    database_url: str, tmp_path: Path, handshake: float, rate: float, number: int
) -> None:
    certificate, key = write_certificate(tmp_path, "localhost")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async with open_polling(database_url) as room:
        replica = await room.replica(rate=rate)
        tasks = await overdue(room, replica, number)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while head := await reader.readline():
                while await reader.readline() != b"\r\n":
                    pass
                body = b'{"id": "%b", "status": "succeeded"}' % head.split()[1].rpartition(b"/")[2]
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            writer.close()

        tls.sni_callback = lambda *_: room.clock.advance(seconds=handshake)
        async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as server:
            url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
            verify = ssl.create_default_context(cafile=str(certificate))
            async with RivyaClient(url, DEFAULT_KEY, deadlines=PATIENT, verify=verify) as client:
                replica.poller._client = client
                await replica.poll()
                await replica.poll()
        assert [(await replica.row(task))["status"] for task in tasks] == ["succeeded"] * number


async def test_polls_are_claimed_ahead_while_others_are_under_way(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(most_at_once=1, most_ahead=3)
        await overdue(room, replica, 6)
        await replica.poller.run_once()
        leased = [row for row in await replica.rows(generations) if row["lease_until"] is not None]
        assert len(leased) == 4
        await room.clock.run(replica.poller.idle())
        assert len(room.polls) == 4
        assert most_in_any_second(room.polls) <= 5


async def test_after_polls_that_missed_their_slots_fewer_are_claimed(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(rate=1000, most_at_once=60)
        await overdue(room, replica, 60)
        await replica.poller.run_once()
        assert replica.poller.under_way == 60
        room.clock.advance(seconds=3)
        await room.clock.run(replica.poller.idle())
        await replica.poller.run_once()
        assert replica.poller.under_way == 16
        await replica.poller.stop()


async def test_a_poll_claimed_ahead_that_finds_all_hands_full_is_given_back_and_no_more_are_claimed(
    database_url: str,
) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(most_at_once=1, most_ahead=2)
        await overdue(room, replica, 4)
        room.sandbox.faults.api.append(ApiFault(hang=60))
        poller = replica.poller
        room.clock.stands_still_while[:] = [lambda: poller.asking + poller.connecting > 0 and not room.polls]
        await replica.poller.run_once()
        await room.clock.run(_until_given_back(replica))
        await room.clock.run(_until_asked(room))
        assert len(room.polls) == 1
        assert await replica.poller.run_once() == 0.02
        leased = [row for row in await replica.rows(generations) if row["lease_until"] is not None]
        assert [row["id"] for row in leased] == room.polled
        await replica.poller.stop()


async def test_polls_claimed_ahead_are_given_back_at_a_stop(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(most_at_once=1, most_ahead=3)
        await overdue(room, replica, 4)
        await replica.poller.run_once()
        await replica.poller.stop()
        assert room.polls == []
        assert [row["lease_until"] for row in await replica.rows(generations)] == [None] * 4


async def test_a_poller_with_all_hands_full_starts_no_more(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(most_at_once=2, most_ahead=0)
        await overdue(room, replica, 4)
        await replica.poller.run_once()
        assert await replica.poller.run_once() == 0.02
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
        assert (row["status"], row["last_error"]) == ("queued", "not_recorded overloaded")

        await replica.batch.start()
        assert await replica.wait_until_due(task) == 10
        await replica.poll()
        assert (await replica.row(task))["status"] == "succeeded"


async def test_a_poll_that_hangs_past_the_grace_of_a_stop_is_given_back(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await overdue(room, replica, 1)
        room.sandbox.faults.api.append(ApiFault(hang=60))
        await replica.poller.run_once()
        await room.clock.run(_until_asked(room))
        await replica.poller.stop()
        row = await replica.row(task)
        assert (row["lease_until"], row["polls"], row["next_poll_at"]) == (None, 0, room.clock.now())


async def test_any_call_that_rivya_takes_ends_the_stop_of_a_refused_key(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        await replica.limiter.record_error(REVOKED)
        assert not (await replica.limiter.health()).ok
        await replica.limiter.record_success()
        assert (await replica.limiter.health()).ok


async def test_a_429_to_any_call_pauses_polling(database_url: str) -> None:
    async with open_polling(database_url) as room:
        one, other = await room.replica(), await room.replica()
        await overdue(room, one, 1)
        await one.limiter.record_error(HASTY)
        await other.poll()
        assert room.polls == []
        assert not await room.clock.run(other.limiter.acquire())
        assert "paused" in (await other.limiter.health()).detail


async def _until_asked(room: PollingHarness) -> None:
    while not room.polls:
        await asyncio.sleep(0)


async def _until_given_back(replica: Replica) -> None:
    """Until of all that was claimed only what is being asked for is left."""
    while replica.poller.under_way > 1:
        await asyncio.sleep(0)
