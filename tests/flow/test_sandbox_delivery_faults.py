"""Each fault of the sandbox's deliveries has its effect, for every event or for one request."""

import hashlib
import hmac

import pytest

from app.sandbox.faults import DeliveryFaults
from app.sandbox.models import Status
from tests.support.clock import NOON, ManualClock
from tests.support.sandbox_harness import Received, World, world

NOON_UNIX = int(NOON.timestamp())


def carried(w: World) -> list[tuple[str, str]]:
    return [(request.event["data"]["id"], request.event["data"]["status"]) for request in w.inbox.received]


def verifies(secret: str, request: Received) -> bool:
    time, _, signature = request.headers["rivya-signature"].partition(",")
    signed = time.removeprefix("t=").encode() + b"." + request.body
    return signature == "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


async def test_a_dropped_callback_never_arrives_and_is_on_no_public_log() -> None:
    async with world() as w:
        endpoint = await w.register()
        await w.sandbox.settle(await w.create(callback="drop"))
        await w.sandbox.advance(1000)
        assert w.inbox.received == []
        log = (await w.client.get(f"/api/v1/webhooks/{endpoint['id']}/deliveries")).json()
        assert log["data"] == []
        assert w.sandbox.state()["deliveries"][0]["status"] == "dropped"


async def test_a_delayed_callback_arrives_when_its_time_has_come() -> None:
    async with world() as w:
        await w.register()
        await w.sandbox.settle(await w.create(callback="delay:10"))
        await w.sandbox.advance(9.9)
        assert w.inbox.received == []
        await w.sandbox.advance(0.1)
        assert len(w.inbox.received) == 1


async def test_a_duplicated_callback_is_the_same_event_again() -> None:
    async with world() as w:
        await w.register()
        await w.sandbox.settle(await w.create(callback="duplicate:2"))
        assert len(w.inbox.received) == 3
        assert len(set(w.inbox.ids)) == 1


async def test_a_reordered_callback_lets_the_next_one_pass() -> None:
    async with world() as w:
        await w.register()
        first, second = await w.create(callback="reorder"), await w.create()
        await w.sandbox.settle(first)
        assert w.inbox.received == []
        await w.sandbox.settle(second)
        assert carried(w) == [(second, "succeeded"), (first, "succeeded")]


async def test_a_reordered_callback_that_nothing_overtakes_arrives_late() -> None:
    async with world() as w:
        await w.register()
        await w.sandbox.settle(await w.create(callback="duplicate,reorder"))
        await w.sandbox.advance(w.sandbox.settings.reorder_seconds)
        assert len(w.inbox.received) == 2


async def test_a_forged_callback_does_not_verify() -> None:
    async with world() as w:
        secret = (await w.register())["signing_secret"]
        await w.sandbox.settle(await w.create())
        await w.sandbox.settle(await w.create(callback="forge"))
        assert [verifies(secret, request) for request in w.inbox.received] == [True, False]


@pytest.mark.parametrize(("status", "opposite"), [("succeeded", "failed"), ("failed", "succeeded")])
async def test_a_contradicted_callback_is_followed_by_another_event_that_verifies(
    status: Status, opposite: Status
) -> None:
    async with world() as w:
        secret = (await w.register())["signing_secret"]
        generation_id = await w.create(callback="contradict")
        await w.sandbox.settle(generation_id, status)
        assert carried(w) == [(generation_id, status), (generation_id, opposite)]
        assert len(set(w.inbox.ids)) == 2
        assert all(verifies(secret, request) for request in w.inbox.received)
        assert w.sandbox.state()["generations"][0]["status"] == status


async def test_an_early_callback_arrives_before_the_create_is_answered() -> None:
    async with world() as w:
        await w.register()
        body = {"model": "z-image", "params": {"sandbox": {"callback": "early", "fail": True}}}
        answer = (await w.client.post("/api/v1/generations", json=body)).json()
        assert answer["status"] == "queued"
        assert carried(w) == [(answer["id"], "failed")]


@pytest.mark.parametrize("skew", [-600, 600])
async def test_a_skewed_callback_is_properly_signed_at_another_time(skew: int) -> None:
    async with world(clock=ManualClock()) as w:
        secret = (await w.register())["signing_secret"]
        await w.sandbox.settle(await w.create(callback=f"skew:{skew}"))
        request = w.inbox.received[0]
        assert request.headers["rivya-signature"].startswith(f"t={NOON_UNIX + skew},")
        assert verifies(secret, request)


async def test_a_corrupted_callback_is_still_json_but_does_not_verify() -> None:
    async with world() as w:
        secret = (await w.register())["signing_secret"]
        generation_id = await w.create(callback="corrupt")
        await w.sandbox.settle(generation_id)
        assert carried(w) == [(generation_id, "succeeded")]
        assert not verifies(secret, w.inbox.received[0])


async def test_faults_of_the_sandbox_befall_every_event_until_cleared() -> None:
    async with world() as w:
        await w.register()
        w.sandbox.faults.deliveries = DeliveryFaults(drop=True)
        await w.sandbox.settle(await w.create())
        await w.sandbox.settle(await w.create())
        assert w.inbox.received == []
        w.sandbox.faults.clear()
        await w.sandbox.settle(await w.create())
        assert len(w.inbox.received) == 1


async def test_faults_can_befall_the_next_events_only() -> None:
    async with world() as w:
        await w.register()
        w.sandbox.faults.deliveries = DeliveryFaults(drop=True, times=1)
        first, second = await w.create(), await w.create()
        await w.sandbox.settle(first)
        await w.sandbox.settle(second)
        assert carried(w) == [(second, "succeeded")]


async def test_faults_can_befall_some_event_types_only() -> None:
    async with world() as w:
        await w.register()
        w.sandbox.faults.deliveries = DeliveryFaults(drop=True, only="generation.failed")
        await w.sandbox.settle(await w.create(), "failed")
        await w.sandbox.settle(await w.create(), "succeeded")
        assert w.inbox.types == ["generation.succeeded"]


async def test_a_test_delivery_suffers_the_same_faults() -> None:
    async with world() as w:
        endpoint = await w.register()
        w.sandbox.faults.deliveries = DeliveryFaults(forge=True)
        await w.client.post(f"/api/v1/webhooks/{endpoint['id']}/test")
        assert not verifies(endpoint["signing_secret"], w.inbox.received[0])


async def test_any_status_can_be_reported_as_an_event_of_any_type() -> None:
    async with world() as w:
        await w.register()
        generation_id = await w.create()
        await w.sandbox.settle(generation_id)
        await w.sandbox.emit(generation_id, "processing", event_type="generation.progress")
        assert w.inbox.types == ["generation.succeeded", "generation.progress"]
        assert carried(w)[-1] == (generation_id, "processing")
        assert w.sandbox.state()["generations"][0]["status"] == "succeeded"
