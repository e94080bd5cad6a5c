"""Ten processes started together make one endpoint, and each learns its secret."""

import asyncio
from typing import Any

import pytest

from app.core.errors import DatabaseUnavailable
from app.core.leases import Leases
from app.endpoint.models import live
from app.endpoint.reconciler import IDLE_SECONDS, LEASE, PROOF_SECONDS, STANDBY_SECONDS, TERM
from app.endpoint.repository import EndpointRepository
from app.rivya.signature import Verified
from tests.support.registration_harness import RegistrationHarness, Replica, room, verify

REPLICAS = 10
RESTS = (IDLE_SECONDS, PROOF_SECONDS)


async def _run(r: RegistrationHarness, replica: Replica) -> None:
    """What the loop does, with each pause passed over: turns until nothing is left to do, also after an error."""
    async with asyncio.timeout(60):
        while not await _has_settled(replica):
            if replica.reconciler.retry_in:  # a failure: time moves only while no call is under way
                r.clock.advance(seconds=1)
            await asyncio.sleep(0)


async def _has_settled(replica: Replica) -> bool:
    """Take one turn. A lock that ten who never pause kept for too long is an error, which the loop repeats."""
    try:
        return await _is_settled(replica, await replica.reconciler.run_once())
    except DatabaseUnavailable:
        return False


async def _is_settled(replica: Replica, pause: float) -> bool:
    """This process rests, or another one has done it all."""
    return pause in RESTS and live(await EndpointRepository(replica.database).endpoints()) is not None


async def _start_together(r: RegistrationHarness) -> list[Replica]:
    replicas = [await r.start(after=0) for _ in range(REPLICAS)]
    await asyncio.gather(*(_run(r, replica) for replica in replicas))
    return replicas


async def test_ten_processes_started_together_make_one_endpoint_and_all_learn_its_secret_in_two_seconds(
    postgres_url: str,
) -> None:
    async with room(postgres_url) as r:
        replicas = await _start_together(r)
        [endpoint] = r.at_rivya()
        assert r.calls("webhooks.create") == 1
        assert r.calls("webhooks.rotate") == r.calls("webhooks.delete") == 0
        assert (await r.row())["rivya_id"] == endpoint.id
        delivery = await r.deliver()
        for replica in replicas:
            await replica.keyring.run_once()
            assert isinstance(verify(replica.keyring, delivery, r.clock.now()), Verified)


@pytest.mark.parametrize(
    "fault",
    [
        {"route": "webhooks.create", "times": 1, "when": "after", "connection": "reset"},
        {"route": "webhooks.create", "times": 3, "status": 503},
        {"route": "webhooks.create", "times": 1, "hang": 0.1},
        {"route": "webhooks.*", "times": 5, "status": 429},
    ],
    ids=str,
)
async def test_ten_processes_and_a_faulty_rivya_end_with_one_endpoint(postgres_url: str, fault: dict[str, Any]) -> None:
    async with room(postgres_url) as r:
        r.sandbox.scheduler.manual = False
        r.fault(**fault)
        replicas = await _start_together(r)
        [endpoint] = r.at_rivya()
        assert (await r.live())["rivya_id"] == endpoint.id
        delivery = await r.deliver()
        for replica in replicas:
            assert isinstance(verify(await replica.learn(), delivery, r.clock.now()), Verified)


async def test_a_lease_left_by_a_killed_process_is_taken_over_when_it_runs_out(database_url: str) -> None:
    async with room(database_url) as r:
        killed, other = await r.start(), await r.start(after=0)
        killed_leases = Leases(killed.database, holder="killed")
        assert await killed_leases.acquire(LEASE, now=r.clock.now(), term=TERM)
        assert await other.reconciler.run_once() == STANDBY_SECONDS
        assert await r.rows() == []
        r.clock.advance(seconds=30)
        await other.reconciler.run_once()
        assert len(r.at_rivya()) == 1


async def test_a_process_that_slept_through_its_lease_stores_nothing(postgres_url: str) -> None:
    async with room(postgres_url) as r:
        slow, other = await r.start(), await r.start(after=0)
        r.sandbox.scheduler.manual = False
        r.fault("webhooks.create", times=1, hang=0.3, when="after")
        turn = asyncio.ensure_future(slow.reconciler.run_once())
        while not r.at_rivya():  # until its create has taken effect and hangs in the answer
            await asyncio.sleep(0)
        r.clock.advance(seconds=31)
        await other.reconciler.run_once()
        await turn
        [endpoint] = r.at_rivya()
        assert len([secret for secret in await r.secrets() if secret["valid_until"] is None]) == 1
        assert isinstance(verify(await other.learn(), await r.deliver(), r.clock.now()), Verified)
        assert endpoint.past_secrets != []
