"""Each alarm is raised by the fault it is about, in the log, at /readyz and by its alert rule, and cleared after it."""

import asyncio
from datetime import timedelta

import asyncpg

from app.core.auth import Caller, Role
from app.core.leases import Leases
from app.endpoint.reconciler import LEASE as LEADER
from app.ledger.postgres import FEED_LOCK
from app.operations.alarms import Alarm
from app.sandbox.faults import ApiFault
from app.submission.models import read_create
from app.submission.store import SubmissionRepository
from tests.support.databases import PostgresDatabases
from tests.support.reports import poll, submit, webhook
from tests.support.service_harness import PATH_KEY, ServiceHarness, open_service


async def lead(room: ServiceHarness, *, seconds: float) -> None:
    leases = Leases(room.service.database, holder="another replica")
    await leases.acquire(LEADER, now=room.clock.now(), term=timedelta(seconds=seconds))


async def raised_by_then(room: ServiceHarness) -> set[Alarm]:
    """What is raised while the leader lives."""
    await lead(room, seconds=10)
    return await room.raised()


async def test_a_service_at_rest_raises_nothing(database_url: str) -> None:
    async with open_service(database_url) as room:
        assert await raised_by_then(room) == set()
        room.pass_time(days=7)
        assert await raised_by_then(room) == set()
        assert room.lines == []


async def test_outcomes_that_only_polls_find_are_noticed(database_url: str) -> None:
    async with open_service(database_url) as room:
        await room.record(*(webhook(f"called-{n}", "succeeded") for n in range(5)))
        await room.record(*(poll(f"missed-{n}", "succeeded") for n in range(5)))
        assert await raised_by_then(room) == set()  # half of them
        await room.record(poll("missed-5", "failed"))
        assert await raised_by_then(room) == {Alarm.CALLBACKS_MISSED}
        room.pass_time(hours=1, seconds=1)
        assert await raised_by_then(room) == set()
        assert room.lines == [("alarm.crossed", "callbacks_missed"), ("alarm.cleared", "callbacks_missed")]


async def test_a_write_that_holds_up_the_feed_is_noticed_and_one_that_others_forgot_holds_up_nothing(
    postgres_url: str, postgres_databases: PostgresDatabases
) -> None:
    elsewhere = await asyncio.to_thread(postgres_databases.migrated)
    forgotten, writer = [await asyncpg.connect(postgres_databases.direct(url)) for url in (elsewhere, postgres_url)]
    async with open_service(postgres_url) as room:
        await forgotten.execute("BEGIN; UPDATE feed SET removed_through = 0")
        await room.record(webhook("shown", "succeeded"))
        room.pass_time(minutes=1)
        assert await raised_by_then(room) == set()
        next_position = "SELECT last_value + is_called::int FROM transitions_feed_position_seq"
        await writer.execute(f"BEGIN; SELECT pg_advisory_xact_lock_shared({FEED_LOCK} + ({next_position}))")
        await room.record(webhook("held", "succeeded", at=room.clock.now()))
        room.pass_time(seconds=5)
        assert await raised_by_then(room) == set()
        room.pass_time(seconds=1)
        assert await raised_by_then(room) == {Alarm.FEED_LAG}
        await writer.execute("ROLLBACK")
        assert await raised_by_then(room) == set()
    for connection in (forgotten, writer):
        await connection.close()
    await asyncio.to_thread(postgres_databases.drop, elsewhere)


async def test_silence_while_generations_are_open_is_noticed(database_url: str) -> None:
    async with open_service(database_url, RECEIVER_ALARM_OVERDUE="1000") as room:
        await room.record(webhook("long-ago", "succeeded"))
        room.pass_time(days=3)
        await room.record(submit("open", at=room.clock.now()))
        assert await raised_by_then(room) == set()  # three days without a delivery, and nothing to deliver
        room.pass_time(minutes=31)
        assert await raised_by_then(room) == {Alarm.SILENCE}
        await room.record(webhook("another", "succeeded", at=room.clock.now()))
        assert await raised_by_then(room) == set()
        assert room.lines == [("alarm.crossed", "silence"), ("alarm.cleared", "silence")]


async def test_deliveries_that_are_all_refused_are_noticed(database_url: str) -> None:
    async with open_service(database_url) as room:
        await room.registered()
        # Together: each would wait for a turn to read newer secrets, of which there is one a second.
        posts = (room.client.post(f"/rivya/webhook/{PATH_KEY}", content=b'{"id": "evt_1"}') for _ in range(11))
        assert [answer.status_code for answer in await asyncio.gather(*posts)] == [401] * 11
        await room.service.endpoint_health.run_once()
        assert await raised_by_then(room) == {Alarm.REFUSALS}
        room.service.endpoint_health.record_verified("endpoint-1", room.clock.now())
        await room.service.endpoint_health.run_once()
        assert await raised_by_then(room) == set()
        assert room.lines == [("alarm.crossed", "refusals"), ("alarm.cleared", "refusals")]


async def test_refusals_at_an_endpoint_made_by_hand_are_noticed(database_url: str) -> None:
    async with open_service(database_url, RIVYA_SIGNING_SECRET="whsec_made_by_hand") as room:
        for _ in range(11):
            assert (await room.client.post("/rivya/webhook", content=b'{"id": "evt_1"}')).status_code == 401
        await room.service.rejections.run_once()
        assert await room.raised() == {Alarm.REFUSALS}  # and no leader is missed
        room.pass_time(seconds=1)
        await room.record(webhook("good", "succeeded", at=room.clock.now()))
        assert await room.raised() == set()


async def test_generations_that_nobody_polls_are_noticed(database_url: str) -> None:
    async with open_service(database_url, RECEIVER_ALARM_OVERDUE="3") as room:
        await room.record(*(submit(f"g{n}") for n in range(4)))
        assert await raised_by_then(room) == set()
        room.pass_time(minutes=5)
        assert await raised_by_then(room) == {Alarm.OVERDUE}
        await room.record(webhook("g0", "succeeded", at=room.clock.now()))
        assert await raised_by_then(room) == set()
        assert room.lines == [("alarm.crossed", "overdue"), ("alarm.cleared", "overdue")]


async def test_a_create_that_stays_unresolved_is_noticed(database_url: str) -> None:
    async with open_service(database_url) as room:
        store = SubmissionRepository(room.service.database)
        create = read_create(b'{"model": "z-image"}')
        await store.begin(create, "order-1", Caller("shop", Role.WRITE), now=room.clock.now())
        room.pass_time(minutes=14)
        assert await raised_by_then(room) == set()
        room.pass_time(minutes=2)
        assert await raised_by_then(room) == {Alarm.SUBMISSION}
        await room.service.retrier.run_once()
        assert await raised_by_then(room) == set()
        assert room.lines == [("alarm.crossed", "submission"), ("alarm.cleared", "submission")]


async def test_polls_that_keep_failing_are_noticed(database_url: str) -> None:
    async with open_service(database_url, RECEIVER_ALARM_POLL_ERRORS="2", RECEIVER_POLL_RATE="1000") as room:
        generation = await room.sandbox.generations.create(
            "default", {"model": "z-image", "prompt": "a river"}, key=None
        )
        await room.record(submit(generation["id"]))
        room.sandbox.faults.api.append(ApiFault(route="generations.get", status=500, times=3))
        for number in range(3):
            assert await raised_by_then(room) == set(), number
            await room.poll()
        assert await raised_by_then(room) == {Alarm.POLL_ERRORS}
        await room.poll()
        assert await raised_by_then(room) == set()
        assert room.lines == [("alarm.crossed", "poll_errors"), ("alarm.cleared", "poll_errors")]


async def test_a_missing_leader_is_noticed(database_url: str) -> None:
    async with open_service(database_url) as room:
        await lead(room, seconds=10)
        assert await room.raised() == set()
        room.pass_time(seconds=60)
        assert await room.raised() == set()
        room.pass_time(seconds=1)
        assert await room.raised() == {Alarm.LEADER}
        await lead(room, seconds=10)
        assert await room.raised() == set()
        assert room.lines == [("alarm.crossed", "leader"), ("alarm.cleared", "leader")]
