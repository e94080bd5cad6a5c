"""How deliveries are signed is found out by the first one that a known secret signed, and holds from then on."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, update

from app.endpoint.repository import endpoints
from app.endpoint.service import EndpointCommands
from app.endpoint.verification import DetectionBusy
from app.rivya.signature import Reason, Refused, Verified
from app.sandbox.signing import Scheme
from tests.support.registration_harness import RegistrationHarness, Replica, room
from tests.support.sandbox_harness import Received, standard_webhooks

SCHEMES = {
    "timestamped": Scheme(),
    "timestamped in base64": Scheme(signature_header="X-Acme-Signature", encoding="base64", key_form="suffix"),
    "standard": standard_webhooks("svix-"),
    "separate": Scheme(family="separate", prefix="v1=", timestamp_format="iso", key_form="hex"),
    "body": Scheme(family="body", signature_header="X-Hub-Signature-256", prefix="sha256="),
}


async def _registered(r: RegistrationHarness, **options: Any) -> Replica:
    replica = await r.start(scheme=None, **options)
    await replica.reconciler.run_once()
    await replica.learn()
    return replica


async def _finding(replica: Replica, name: str) -> Any:
    return next(finding for finding in await replica.health.health_checks() if finding.name == name)


@pytest.mark.parametrize("name", SCHEMES)
async def test_the_test_delivery_that_was_asked_for_proves_the_secret_and_a_scheme_with_documented_names(
    database_url: str, name: str
) -> None:
    async with room(database_url) as r:
        r.sandbox.settings.scheme = SCHEMES[name]
        replica = await _registered(r)
        [test] = r.world.inbox.received
        assert isinstance(await replica.accept(test), Verified)
        await replica.reconciler.run_once()
        row, [secret] = await r.row(), await r.secrets()
        assert (row["state"], secret["proven_at"]) == ("serving", r.clock.now())
        proof = test if name == "timestamped" else await r.deliver()
        assert isinstance(await replica.accept(proof), Verified)
        row = await r.row()
        assert (row["proven_by"], row["proven_at"]) == (proof.event["id"], r.clock.now())
        assert str(replica.keyring.snapshot.scheme) == row["scheme"]
        assert SCHEMES[name].signature_header.lower() in row["scheme"]
        assert isinstance(await replica.accept(await r.deliver()), Verified)


async def test_whoever_saw_one_delivery_cannot_choose_the_headers_of_the_scheme(database_url: str) -> None:
    async with room(database_url) as r:
        replica, delivery = await _by_hand(r)
        value = delivery.headers["rivya-signature"]
        stamp, mac = value.removeprefix("t=").split(",v1=")
        others = (
            {"x-rivya-signature": mac, "x-rivya-timestamp": stamp},
            {"zz-signature": value},
            {"webhook-signature": value},
        )
        for headers in others * 2:
            again = replace(delivery, headers=headers)
            assert isinstance(await replica.accept(again), Verified)
        assert (await replica.learn()).snapshot.scheme is None
        for following in (await r.deliver(), await r.deliver()):
            assert isinstance(await replica.accept(following), Verified)
        assert "signature=rivya-signature" in str(replica.keyring.snapshot.scheme)


async def test_a_scheme_is_looked_for_only_at_our_path(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _registered(r)
        [test] = r.world.inbox.received
        for path in ("/rivya/webhook", "/rivya/webhook/another"):
            assert await replica.accept(replace(test, path=path)) == Refused(Reason.SIGNATURE_MISMATCH)


async def test_what_looking_for_the_scheme_costs_in_a_second_is_bounded(database_url: str) -> None:
    async with room(database_url) as r:
        replica, delivery = await _by_hand(r)
        forged = replace(delivery, body=b"x" * 1_000_000)
        results = await asyncio.gather(*(replica.accept(forged) for _ in range(30)), return_exceptions=True)
        assert results.count(Refused(Reason.SIGNATURE_MISMATCH)) == 10
        assert [type(result) for result in results].count(DetectionBusy) == 20
        r.clock.advance(seconds=1)
        assert isinstance(await replica.accept(delivery), Verified)


async def test_a_later_start_and_another_replica_begin_with_what_was_proved(database_url: str) -> None:
    async with room(database_url) as r:
        first = await _registered(r)
        await first.accept(r.world.inbox.received[-1])
        later = await r.start(scheme=None)
        await later.keyring.load()
        assert later.keyring.snapshot.scheme == first.keyring.snapshot.scheme is not None
        assert isinstance(await later.accept(await r.deliver()), Verified)


@pytest.mark.parametrize("refused", [True, False])
async def test_without_a_test_delivery_the_first_real_one_proves(database_url: str, *, refused: bool) -> None:
    async with room(database_url) as r:
        if refused:
            r.fault("webhooks.test", status=404)
        else:
            r.sandbox.faults.deliveries.drop = True
            r.sandbox.faults.deliveries.only = "webhook.test"
        replica = await _registered(r)
        assert r.world.inbox.received == []
        await replica.health.run_once()
        assert replica.health.callbacks_expected()
        r.clock.advance(seconds=30)
        await replica.health.run_once()
        assert not replica.health.callbacks_expected()
        assert not (await _finding(replica, "deliveries")).ok
        assert isinstance(await replica.accept(await r.deliver()), Verified)
        await replica.reconciler.run_once()
        assert (await r.row())["state"] == "serving"


async def test_until_something_is_proved_a_test_delivery_is_asked_for_at_every_check(database_url: str) -> None:
    async with room(database_url) as r:
        r.fault("webhooks.test", status=404)
        replica = await _registered(r)
        assert r.calls("webhooks.test") == 1
        r.clock.advance(seconds=400)
        await replica.reconciler.run_once()
        assert r.calls("webhooks.test") == 2


async def test_what_no_secret_signed_proves_nothing_and_is_refused(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _registered(r)
        r.sandbox.faults.deliveries.forge = True
        forged = await r.deliver()
        assert await replica.accept(forged) == Refused(Reason.SIGNATURE_MISMATCH)
        bare = replace(forged, headers={})
        assert await replica.accept(bare) == Refused(Reason.MISSING_SIGNATURE)
        assert (await r.row())["scheme"] is None


async def test_a_right_signature_of_long_ago_pins_nothing(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _registered(r)
        test = r.world.inbox.received[-1]
        r.clock.advance(seconds=301)
        assert await replica.accept(test) == Refused(Reason.STALE_TIMESTAMP, -301.0)
        assert (await r.row())["state"] == "created"


async def _other_scheme(r: RegistrationHarness, replica: Replica, deliveries: int = 1) -> list[Verified | Refused]:
    """Deliveries signed with the right secret in another way than the one that was proved."""
    r.sandbox.settings.scheme = SCHEMES["standard"]
    answers = []
    for _ in range(deliveries):
        r.clock.advance(seconds=1)
        answers.append(await replica.accept(await r.deliver()))
    return answers


async def test_once_pinned_only_the_pinned_scheme_is_accepted_and_the_contradiction_is_loud(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _registered(r)
        await r.settle(replica)
        refused = await _other_scheme(r, replica, deliveries=3)
        assert refused == [Refused(Reason.MISSING_SIGNATURE)] * 3
        row = await r.row()
        assert row["scheme"].startswith("timestamped")
        assert (row["other_scheme"].split(";")[0], row["other_scheme_count"]) == ("standard-webhooks", 3)
        finding = await _finding(replica, "signature_scheme")
        assert not finding.ok
        assert "endpoint repin" in finding.detail


async def test_an_admin_has_the_scheme_proved_anew(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _registered(r)
        await r.settle(replica)
        await _other_scheme(r, replica, deliveries=3)
        await EndpointCommands(replica.database, clock=r.clock).repin()
        await replica.reconciler.run_once()  # which asks for a test delivery
        await replica.learn()
        for delivery in (r.world.inbox.received[-1], await r.deliver()):
            assert isinstance(await replica.accept(delivery), Verified)
        row = await r.row()
        assert row["scheme"].startswith("standard-webhooks")
        assert row["other_scheme_count"] == 0
        assert (await _finding(replica, "signature_scheme")).ok


async def test_two_replicas_that_prove_at_once_pin_one_scheme(database_url: str) -> None:
    async with room(database_url) as r:
        one = await _registered(r)
        other = await r.start(scheme=None, after=0)
        await other.keyring.load()
        delivery = await r.deliver()
        results = await asyncio.gather(*(replica.accept(delivery) for replica in (one, other) for _ in range(5)))
        assert all(isinstance(result, Verified) for result in results)
        assert one.keyring.snapshot.scheme == other.keyring.snapshot.scheme


async def test_all_that_come_at_once_are_proved_by_one(database_url: str) -> None:
    async with room(database_url) as r:
        r.fault("webhooks.test", status=404)
        replica = await _registered(r)
        deliveries = [await r.deliver() for _ in range(40)]
        proofs = 0

        def count(*statement: Any) -> None:
            nonlocal proofs
            proofs += statement[2].startswith("SELECT endpoints.id, endpoints.state, endpoints.scheme")

        event.listen(replica.database.engine.sync_engine, "before_cursor_execute", count)
        results = await asyncio.gather(*(replica.accept(delivery) for delivery in deliveries))
        assert all(isinstance(result, Verified) for result in results)
        assert proofs == 1


async def test_a_replica_that_proves_too_late_goes_by_what_was_pinned_before(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _registered(r)
        pin = "body;signature=x-other;encoding=hex;key=whole"
        async with r.database.transaction() as connection:
            await connection.execute(update(endpoints).values(scheme=pin))
        assert await replica.accept(r.world.inbox.received[-1]) == Refused(Reason.MISSING_SIGNATURE)
        assert (await r.row())["scheme"] == pin


async def _by_hand(r: RegistrationHarness) -> tuple[Replica, Received]:
    endpoint = await r.world.register(url=f"{r.public_url}/rivya/webhook")
    replica = await r.start(public_url=None, fixed_secret=endpoint["signing_secret"], scheme=None)
    await replica.keyring.load()
    return replica, await r.deliver()


async def test_the_scheme_of_an_endpoint_made_by_hand_is_proved_and_kept(database_url: str) -> None:
    async with room(database_url) as r:
        replica, first = await _by_hand(r)
        delivery = await r.deliver()
        for each in (first, delivery):
            assert isinstance(await replica.accept(each), Verified)
        row = await r.row()
        assert (row["state"], row["proven_by"]) == ("manual", delivery.event["id"])
        later = await r.start(public_url=None, fixed_secret=r.at_rivya()[0].secret, scheme=None)
        await later.keyring.load()
        assert str(later.keyring.snapshot.scheme) == row["scheme"]
        assert isinstance(await later.accept(await r.deliver()), Verified)
        assert len(await r.rows()) == 1


async def test_a_new_endpoint_begins_with_the_scheme_that_the_old_one_proved(database_url: str) -> None:
    async with room(database_url) as r:
        await r.settle(await _registered(r))
        r.sandbox.endpoints.remove(r.at_rivya()[0])
        replica = await r.settle(await r.start(scheme=None))
        assert [row["state"] for row in await r.rows()] == ["retired", "serving"]
        assert replica.keyring.snapshot.scheme is not None
