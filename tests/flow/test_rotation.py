"""A secret is replaced without a gap: the old one counts for days, the new one from the moment Rivya has it."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet

from app.core.encryption import DecryptionFailed, SecretBox
from app.core.errors import NotFound
from app.endpoint.proofs import ProofRepository
from app.endpoint.repository import EndpointRepository, ReencryptionResult, reencrypt_secrets
from app.endpoint.service import EndpointCommands
from app.endpoint.verification import SecretPending, Verification
from app.rivya.signature import Verified
from tests.support.registration_harness import ENCRYPTION_KEY, RegistrationHarness, Replica, room

HOURS = 3600


async def _serving(r: RegistrationHarness, **options: Any) -> Replica:
    return await r.settle(await r.start(**options))


async def _rotate(r: RegistrationHarness, replica: Replica) -> None:
    await EndpointCommands(replica.database, clock=r.clock).request_rotation()
    await replica.reconciler.run_once()


async def test_a_wish_is_fulfilled_by_whoever_leads_and_both_secrets_count(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _serving(r)
        before = await r.deliver()
        await _rotate(r, replica)
        assert r.calls("webhooks.rotate") == 1
        after = await r.deliver()
        assert isinstance(await replica.accept(after), Verified)
        assert isinstance(await replica.accept(before), Verified)
        events = [entry.event for entry in await EndpointRepository(replica.database).history()]
        assert events[:3] == ["test_asked", "rotated", "rotation_requested"]


async def test_the_old_secret_counts_for_three_days_and_is_then_forgotten(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _serving(r)
        await _rotate(r, replica)
        r.clock.advance(seconds=72 * HOURS - 1)
        assert (await replica.learn()).snapshot.usable_secrets == 2
        r.clock.advance(seconds=1)
        assert (await replica.learn()).snapshot.usable_secrets == 1
        await replica.reconciler.run_once()
        assert len(await r.secrets()) == 1


async def test_a_secret_is_replaced_when_its_days_are_over(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _serving(r, rotate_every=timedelta(days=30))
        r.clock.advance(seconds=29 * 24 * HOURS)
        await replica.reconciler.run_once()
        assert r.calls("webhooks.rotate") == 0
        r.clock.advance(seconds=24 * HOURS)
        await replica.reconciler.run_once()
        await replica.reconciler.run_once()
        assert r.calls("webhooks.rotate") == 1


async def test_a_delivery_signed_before_its_secret_is_stored_waits_for_it_on_every_replica(database_url: str) -> None:
    async with room(database_url) as r:
        leader = await _serving(r)
        other = await r.start(after=0)
        await other.keyring.load()
        r.sandbox.scheduler.manual = False
        r.fault("webhooks.rotate", times=1, hang=0.3, when="after")
        await EndpointCommands(leader.database, clock=r.clock).request_rotation()
        rotating = asyncio.ensure_future(leader.reconciler.run_once())
        while r.at_rivya()[0].previous_secret is None:  # until it has taken effect and hangs in the answer
            await asyncio.sleep(0)
        delivery = await r.deliver()
        results = await asyncio.gather(*(replica.accept(delivery) for replica in (leader, other) for _ in range(20)))
        await rotating
        assert all(isinstance(result, Verified) for result in results)


@pytest.mark.parametrize(
    "fault", [{"connection": "reset"}, {"status": 500}, {"status": 200, "body": "garbage"}], ids=str
)
async def test_a_rotation_whose_answer_is_lost_is_repeated_and_nothing_is_refused_meanwhile(
    database_url: str, fault: dict[str, Any]
) -> None:
    async with room(database_url) as r:
        replica = await _serving(r)
        before = await r.deliver()
        r.fault("webhooks.rotate", times=1, when="after", **fault)
        await _rotate(r, replica)
        lost = await r.deliver()
        hasty = Verification(replica.keyring, ProofRepository(replica.database), clock=r.clock)
        hasty.seconds_in_doubt = 0.1
        replica.verification = hasty
        with pytest.raises(SecretPending):
            await replica.accept(lost)
        assert isinstance(await replica.accept(before), Verified)
        r.clock.advance(seconds=replica.reconciler.retry_in + 0.01)
        await replica.reconciler.run_once()
        assert r.calls("webhooks.rotate") == 2
        assert isinstance(await replica.accept(await r.deliver()), Verified)
        assert (await r.row())["rotation_attempted_at"] is None


async def test_a_rotation_that_rivya_refuses_is_given_up_and_the_secret_goes_on(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _serving(r)
        r.fault("webhooks.rotate", status=400)
        await _rotate(r, replica)
        row = await r.row()
        assert (row["rotation_requested_at"], row["rotation_attempted_at"]) == (None, None)
        assert next(entry.event for entry in await EndpointRepository(replica.database).history()) == "rotation_refused"
        assert isinstance(await replica.accept(await r.deliver()), Verified)


async def test_a_rotation_that_rivya_puts_off_stays_wanted(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _serving(r)
        r.fault("webhooks.rotate", times=1, status=429, retry_after="7")
        await _rotate(r, replica)
        assert (await r.row())["rotation_requested_at"] is not None
        r.clock.advance(seconds=8)
        await replica.reconciler.run_once()
        assert (await r.row())["rotation_requested_at"] is None
        assert isinstance(await replica.accept(await r.deliver()), Verified)


async def test_an_endpoint_found_gone_when_its_secret_is_replaced_is_made_again(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _serving(r)
        r.sandbox.endpoints.remove(r.at_rivya()[0])
        await _rotate(r, replica)
        assert {row["state"] for row in await r.rows()} == {"retired", "created"}
        assert isinstance(await replica.accept(await r.deliver()), Verified)


async def test_without_an_endpoint_there_is_nothing_to_rotate(database_url: str) -> None:
    async with room(database_url) as r:
        with pytest.raises(NotFound):
            await EndpointCommands(r.database, clock=r.clock).request_rotation()


async def test_stored_secrets_are_encrypted_anew_under_the_newest_key(database_url: str) -> None:
    newer = Fernet.generate_key().decode()
    async with room(database_url) as r:
        replica = await _serving(r)
        await _rotate(r, replica)
        both = SecretBox([newer, ENCRYPTION_KEY])
        assert await reencrypt_secrets(replica.database, both) == ReencryptionResult(2, 2)
        assert await reencrypt_secrets(replica.database, both) == ReencryptionResult(0, 2)
        later = await r.start(encryption_keys=[newer])
        await later.keyring.load()
        assert isinstance(await later.accept(await r.deliver()), Verified)


async def test_a_secret_that_does_not_open_keeps_everything_as_it_was(database_url: str) -> None:
    async with room(database_url) as r:
        await _serving(r)
        before = await r.secrets()
        with pytest.raises(DecryptionFailed):
            await reencrypt_secrets(r.database, SecretBox([Fernet.generate_key().decode()]))
        assert await r.secrets() == before
