"""The machine's clock is set by an hour: polls neither stop nor flood, leases hold, no valid delivery is refused."""

import asyncio
from datetime import datetime, timedelta

import orjson
import pytest

from app.core.clock_sync import ClockSync
from app.core.database import Database
from app.ledger.models import Status
from app.ledger.tables import generations
from app.ratelimit.budget import PROBE_INTERVAL
from app.rivya.schemes import parse_scheme
from app.rivya.signature import sign
from app.sandbox.faults import ApiFault
from tests.support.machine_clock import Machine
from tests.support.polling_harness import GRACE, PollingHarness, Replica, most_in_any_second, open_polling
from tests.support.service_harness import ServiceHarness, open_service

HOUR = 3600.0
STEPS = [HOUR, -HOUR]
SECRET = "whsec_made_by_hand"


def step(room: PollingHarness, seconds: float) -> None:
    """The clock that the replicas go by is set; no time passes."""
    room.clock.step(seconds=seconds)


async def run(room: PollingHarness, replica: Replica, *, seconds: int) -> list[str]:
    """What is polled while this time passes."""
    before = len(room.polled)
    until = room.clock.monotonic() + seconds
    while room.clock.monotonic() < until:
        await replica.poll()
        room.clock.advance(seconds=1)
    return room.polled[before:]


@pytest.mark.parametrize("seconds", STEPS)
async def test_polls_go_on_and_keep_their_pace(database_url: str, seconds: float) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(rate=2.0)
        tasks = await room.submit(replica, 6)
        await run(room, replica, seconds=int(GRACE.total_seconds()) + 5)
        assert set(room.polled) == set(tasks)
        step(room, seconds)
        polled = await run(room, replica, seconds=90)
        assert set(polled) == set(tasks)
        assert len(polled) <= 6 * 6  # at 10 s, growing: four or five polls each in that time, and one for the step
        assert most_in_any_second(room.polls) <= 2


@pytest.mark.parametrize("seconds", STEPS)
async def test_a_pause_that_rivya_asked_for_ends(database_url: str, seconds: float) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await room.submit(replica)
        await replica.wait_until_due(task)
        room.sandbox.faults.api.append(ApiFault(status=429, retry_after=30, times=1))
        await replica.poll()
        step(room, seconds)
        assert task in await run(room, replica, seconds=70)


async def test_a_key_that_was_refused_is_tried_again(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await room.submit(replica)
        await replica.wait_until_due(task)
        room.sandbox.faults.api.append(ApiFault(status=401, times=1))
        await replica.poll()
        step(room, -HOUR)
        assert task in await run(room, replica, seconds=int(PROBE_INTERVAL.total_seconds()))


async def deliver(room: ServiceHarness, event_id: str, *, signed_at: datetime) -> int:
    generation = {"id": f"g_{event_id}", "status": "succeeded"}
    body = orjson.dumps({"id": event_id, "type": "generation.succeeded", "data": generation})
    headers = sign(parse_scheme("timestamped"), SECRET, body, timestamp=signed_at, event_id=event_id)
    return (await room.client.post("/rivya/webhook", content=body, headers=headers)).status_code


@pytest.mark.parametrize("seconds", STEPS)
async def test_no_valid_delivery_is_refused_whichever_clock_is_right(sqlite_url: str, seconds: float) -> None:
    machine = Machine()
    by_hand = {"RIVYA_SIGNING_SECRET": SECRET, "RIVYA_SIGNATURE_SCHEME": "timestamped"}
    async with open_service(sqlite_url, goes_by=machine.clock, **by_hand) as room:
        timekeeper = ClockSync(machine.clock, room.service.database)
        true = machine.clock.now()
        assert await deliver(room, "evt_before", signed_at=true) == 200
        await timekeeper.run_once()
        machine.step(seconds)
        for number in range(12):  # before the new time is believed, and after
            assert await deliver(room, f"evt_old_{number}", signed_at=true) == 200
            assert await deliver(room, f"evt_new_{number}", signed_at=machine.clock.wall()) == 200
            machine.pass_time(10)
            true += timedelta(seconds=10)
            await timekeeper.run_once()
        assert machine.clock.now() == machine.clock.wall()
        for wrong in (
            true + timedelta(minutes=20),
            true - timedelta(minutes=20),
            true + timedelta(seconds=2 * seconds),
        ):
            assert await deliver(room, "evt_of_no_clock", signed_at=wrong) == 401
        async with room.service.database.read() as connection:
            rows = (await connection.execute(generations.select())).mappings().all()
        assert {row["status"] for row in rows} == {Status.SUCCEEDED}
        assert len(rows) == 25


async def test_a_step_is_believed_after_a_minute_and_not_before(sqlite_url: str) -> None:
    machine, database = Machine(), Database(sqlite_url)
    timekeeper = ClockSync(machine.clock, database)
    await timekeeper.run_once()
    machine.step(HOUR)
    for _ in range(6):
        await timekeeper.run_once()
        assert machine.clock.wall() - machine.clock.now() == timedelta(hours=1)
        machine.pass_time(10)
    await timekeeper.run_once()
    assert machine.clock.wall() == machine.clock.now()
    await database.dispose()


async def test_a_step_that_is_taken_back_leaves_no_trace(sqlite_url: str) -> None:
    machine, database = Machine(), Database(sqlite_url)
    timekeeper, began = ClockSync(machine.clock, database), machine.clock.now()
    machine.step(-HOUR)
    await timekeeper.run_once()
    machine.step(HOUR)
    for _ in range(10):
        await timekeeper.run_once()
        machine.pass_time(10)
    assert machine.clock.now() == began + timedelta(seconds=100)
    await database.dispose()


async def test_replicas_on_postgresql_go_by_its_clock_whatever_their_machines_say(postgres_url: str) -> None:
    machines, database = (Machine(), Machine()), Database(postgres_url)
    machines[1].step(-HOUR)
    await asyncio.gather(*(ClockSync(machine.clock, database).run_once() for machine in machines))
    one, other = (machine.clock.now() for machine in machines)
    assert abs(one - other) < timedelta(seconds=10)
    assert one != machines[0].clock.wall()
    await database.dispose()
