"""Deliveries of the sandbox are signed by the chosen scheme, retried until accepted, and counted on the endpoint."""

import asyncio
import base64
import hashlib
import hmac
from collections import deque
from typing import Any

from app.sandbox.faults import ApiFault
from app.sandbox.settings import Envelope, SandboxSettings
from app.sandbox.signing import Scheme
from tests.support.clock import NOON, ManualClock
from tests.support.event_loop import pass_time
from tests.support.sandbox_harness import Received, World, standard_webhooks, world

NOON_UNIX = int(NOON.timestamp())


def v1(secret: str, request: Received, *, unix: int = NOON_UNIX) -> str:
    return hmac.new(secret.encode(), f"{unix}.".encode() + request.body, hashlib.sha256).hexdigest()


async def endpoint_row(w: World) -> dict[str, Any]:
    row: dict[str, Any] = (await w.client.get("/api/v1/webhooks")).json()["data"][0]
    return row


async def test_by_default_time_and_body_are_signed_with_the_whole_secret() -> None:
    async with world(clock=ManualClock()) as w:
        secret = (await w.register())["signing_secret"]
        await w.sandbox.settle(await w.create())
        request = w.inbox.received[0]
        assert request.headers["rivya-signature"] == f"t={NOON_UNIX},v1={v1(secret, request)}"


async def test_the_scheme_can_be_switched_to_standard_webhooks() -> None:
    async with world(SandboxSettings(scheme=standard_webhooks()), clock=ManualClock()) as w:
        secret = (await w.register())["signing_secret"]
        await w.sandbox.settle(await w.create())
        request = w.inbox.received[0]
        signed = f"{request.event['id']}.{NOON_UNIX}.".encode() + request.body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert request.headers["webhook-signature"] == f"v1,{expected}"


async def test_the_generation_is_wherever_the_envelope_says() -> None:
    envelopes: dict[Envelope, list[str]] = {
        "data": ["data"],
        "data.object": ["data", "object"],
        "data.generation": ["data", "generation"],
        "generation": ["generation"],
        "object": ["object"],
    }
    async with world() as w:
        await w.register()
        for envelope, path in envelopes.items():
            w.sandbox.settings.envelope = envelope
            generation_id = await w.create()
            await w.sandbox.settle(generation_id)
            carried = w.inbox.received[-1].event
            for member in path:
                carried = carried[member]
            assert carried["id"] == generation_id


async def test_an_answer_other_than_2xx_is_tried_again_with_the_same_event_and_a_fresh_time() -> None:
    clock = ManualClock()
    async with world(SandboxSettings(retry_delays=(1, 5)), clock=clock) as w:
        secret = (await w.register())["signing_secret"]
        w.inbox.answers = deque([500, 204])
        await w.sandbox.settle(await w.create())
        clock.advance(seconds=1)
        await w.sandbox.advance(1)
        first, second = w.inbox.received
        assert second.body == first.body
        assert v1(secret, second, unix=NOON_UNIX + 1) in second.headers["rivya-signature"]
        assert w.sandbox.state()["deliveries"][0]["status"] == "succeeded"


async def test_a_delivery_that_is_never_taken_fails_after_its_last_retry() -> None:
    async with world(SandboxSettings(retry_delays=(1, 5))) as w:
        await w.register()
        w.inbox.answers = deque([500] * 9)
        await w.sandbox.settle(await w.create())
        await w.sandbox.advance(1000)
        delivery = w.sandbox.state()["deliveries"][0]
        assert [attempt["response_status"] for attempt in delivery["attempts"]] == [500, 500, 500]
        assert delivery["status"] == "failed"


async def test_a_redirect_is_not_followed_and_counts_as_a_failure() -> None:
    async with world(SandboxSettings(retry_delays=())) as w:
        await w.register()
        w.inbox.answers = deque([302])
        await w.sandbox.settle(await w.create())
        assert len(w.inbox.received) == 1
        assert w.sandbox.state()["deliveries"][0]["status"] == "failed"


async def test_a_receiver_that_is_not_there_is_a_failed_attempt() -> None:
    async with world() as w:
        await w.register(url="http://127.0.0.1:1/hook")
        await w.sandbox.settle(await w.create())
        attempt = w.sandbox.state()["deliveries"][0]["attempts"][0]
        assert (attempt["response_status"], attempt["error"]) == (None, "ConnectError")


async def test_a_receiver_that_does_not_answer_is_given_up_on() -> None:
    async with world(SandboxSettings(delivery_timeout=60)) as w:
        await w.register(url=f"{w.client.base_url}/api/v1/generations")
        generation_id = await w.create()
        w.sandbox.faults.api = [ApiFault("generations.create", hang=3600)]
        settling = asyncio.create_task(w.sandbox.settle(generation_id))
        while w.sandbox.calls.counts["generations.create"] < 2:
            await asyncio.sleep(0)
        pass_time(60)
        await settling
        attempt = w.sandbox.state()["deliveries"][0]["attempts"][0]
        assert (attempt["response_status"], attempt["error"]) == (None, "ReadTimeout")


async def test_an_endpoint_keeps_how_its_deliveries_fared() -> None:
    async with world(SandboxSettings(retry_delays=())) as w:
        await w.register()
        w.inbox.answers = deque([500, 500, 200])
        await w.sandbox.settle(await w.create())
        await w.sandbox.settle(await w.create())
        row = await endpoint_row(w)
        assert (row["failure_count"], row["last_success_at"]) == (2, None)
        assert row["last_failure_at"] is not None
        await w.sandbox.settle(await w.create())
        row = await endpoint_row(w)
        assert (row["failure_count"], row["last_success_at"] is None) == (0, False)


async def test_an_endpoint_is_disabled_after_as_many_failures_as_switched_on() -> None:
    async with world(SandboxSettings(disable_after=2, retry_delays=(1, 1, 1))) as w:
        await w.register()
        w.inbox.answers = deque([500] * 9)
        await w.sandbox.settle(await w.create())
        await w.sandbox.advance(60)
        row = await endpoint_row(w)
        assert (row["status"], row["disabled_at"] is None) == ("disabled", False)
        assert len(w.inbox.received) == 2
        assert w.sandbox.state()["deliveries"][0]["status"] == "abandoned"


async def test_after_a_rotation_the_new_secret_alone_signs() -> None:
    async with world(clock=ManualClock()) as w:
        endpoint = await w.register()
        secret = (await w.client.post(f"/api/v1/webhooks/{endpoint['id']}/rotate-secret")).json()["signing_secret"]
        await w.sandbox.settle(await w.create())
        request = w.inbox.received[0]
        assert request.headers["rivya-signature"] == f"t={NOON_UNIX},v1={v1(secret, request)}"


async def test_within_the_overlap_both_secrets_sign() -> None:
    async with world(SandboxSettings(rotation_overlap=60), clock=ManualClock()) as w:
        endpoint = await w.register()
        old = endpoint["signing_secret"]
        new = (await w.client.post(f"/api/v1/webhooks/{endpoint['id']}/rotate-secret")).json()["signing_secret"]
        await w.sandbox.settle(await w.create())
        await w.sandbox.advance(60)
        await w.sandbox.settle(await w.create())
        within, beyond = w.inbox.received
        both = f"t={NOON_UNIX},v1={v1(new, within)},v1={v1(old, within)}"
        assert within.headers["rivya-signature"] == both
        assert v1(old, beyond) not in beyond.headers["rivya-signature"]


async def test_a_rotation_can_take_effect_late() -> None:
    async with world(SandboxSettings(rotation_lag=60), clock=ManualClock()) as w:
        endpoint = await w.register()
        await w.client.post(f"/api/v1/webhooks/{endpoint['id']}/rotate-secret")
        await w.sandbox.settle(await w.create())
        request = w.inbox.received[0]
        assert request.headers["rivya-signature"].endswith(f"v1={v1(endpoint['signing_secret'], request)}")


async def test_a_secret_fits_the_key_form_in_force_when_it_was_made() -> None:
    async with world(SandboxSettings(scheme=Scheme(key_form="hex"))) as w:
        suffix = (await w.register())["signing_secret"].removeprefix("whsec_")
        assert len(bytes.fromhex(suffix)) == 32
