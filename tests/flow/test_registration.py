"""Registration makes exactly one endpoint, adopts it ever after, and holds a secret that verifies."""

import pytest

from app.core.encryption import DecryptionFailed
from app.endpoint.repository import EndpointRepository, StaleState
from app.rivya.signature import Reason, Refused, Verified
from tests.support.registration_harness import RegistrationHarness, room, verify


async def _registered(r: RegistrationHarness) -> None:
    await (await r.start()).reconciler.run_once()


async def test_the_first_start_makes_one_endpoint_whose_secret_verifies_a_delivery(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await r.start()
        await replica.reconciler.run_once()
        [endpoint] = r.at_rivya()
        row = await r.row()
        assert endpoint.url == row["url"] == f"{r.public_url}/rivya/webhook/{row['path_key']}"
        assert endpoint.event_types == ["generation.succeeded", "generation.failed"]
        assert (row["rivya_id"], row["state"], row["last_error"]) == (endpoint.id, "created", None)
        keyring = await replica.learn()
        assert isinstance(verify(keyring, await r.deliver(), r.clock.now()), Verified)
        assert keyring.snapshot.endpoint_id(row["path_key"]) == row["id"]


async def test_further_turns_and_later_starts_adopt_the_endpoint_with_one_look_at_rivya(database_url: str) -> None:
    async with room(database_url) as r:
        await r.settle(await r.start())
        before = r.sandbox.calls.counts.total()
        later = await r.start()
        for _ in range(3):
            await later.reconciler.run_once()
        assert r.sandbox.calls.counts.total() == before + 1
        assert len(r.at_rivya()) == len(await r.secrets()) == r.calls("webhooks.create") == 1


async def test_the_secret_is_stored_sealed(database_url: str) -> None:
    async with room(database_url) as r:
        await _registered(r)
        [stored] = await r.secrets()
        assert r.at_rivya()[0].secret not in str(stored)


async def test_a_lost_encryption_key_stops_the_start_and_overwrites_nothing(database_url: str) -> None:
    async with room(database_url) as r:
        await _registered(r)
        before = await r.secrets()
        other = await r.start(encryption_keys=["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="])
        with pytest.raises(DecryptionFailed, match="RECEIVER_ENCRYPTION_KEYS"):
            await other.keyring.load()
        await other.reconciler.run_once()
        assert await r.secrets() == before
        assert r.calls("webhooks.rotate") == 0


async def test_without_an_encryption_key_nothing_is_created_that_could_not_be_kept(database_url: str) -> None:
    async with room(database_url) as r:
        await (await r.start(encryption_keys=[])).reconciler.run_once()
        assert r.calls("webhooks.create") == 0
        assert (await r.row())["last_error"] == "encryption_key_missing"


async def test_a_secret_given_by_hand_is_used_and_nothing_registered_or_read(empty_database_url: str) -> None:
    async with room(empty_database_url) as r:
        w = r.world
        endpoint = await w.register()
        replica = await r.start(public_url=None, fixed_secret=endpoint["signing_secret"])
        await replica.keyring.load()
        for turn in (replica.reconciler.run_once, replica.keyring.run_once, replica.health.run_once):
            await turn()
        assert r.calls("webhooks.create") == 1  # by hand
        assert isinstance(verify(replica.keyring, await r.deliver(), r.clock.now()), Verified)
        assert replica.health.callbacks_expected()
        assert all(finding.ok for finding in await replica.health.health_checks())
        assert replica.keyring.snapshot.endpoint_id("anything") is None


async def test_an_endpoint_deleted_at_rivya_is_retired_and_made_again(database_url: str) -> None:
    async with room(database_url) as r:
        await _registered(r)
        gone = r.at_rivya()[0]
        r.sandbox.endpoints.remove(gone)
        replica = await r.start()
        await r.settle(replica)
        assert [row["state"] for row in await r.rows()] == ["retired", "serving"]
        [endpoint] = r.at_rivya()
        keyring = await replica.learn()
        assert isinstance(verify(keyring, await r.deliver(), r.clock.now()), Verified)
        assert (endpoint.id, keyring.snapshot.usable_secrets) != (gone.id, 2)


async def test_an_endpoint_disabled_at_rivya_is_enabled_at_start(database_url: str) -> None:
    async with room(database_url) as r:
        await _registered(r)
        r.at_rivya()[0].set_status("disabled", r.clock.now())
        await _registered(r)
        assert [endpoint.status for endpoint in r.at_rivya()] == ["active"]


async def test_only_one_endpoint_can_be_intended_or_serving_whatever_the_lease_says(database_url: str) -> None:
    async with room(database_url) as r:
        repository = EndpointRepository(r.database)
        await repository.add_intent(path_key="one", url="https://a.example/one", now=r.clock.now())
        with pytest.raises(StaleState):
            await repository.add_intent(path_key="other", url="https://a.example/other", now=r.clock.now())


@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"status": 200, "body": "garbage"}, {"status": 404, "body": "garbage"}]
)
async def test_a_start_that_learns_nothing_from_rivya_keeps_what_there_is(
    database_url: str, fault: dict[str, object]
) -> None:
    async with room(database_url) as r:
        await _registered(r)
        r.fault("webhooks.*", **fault)
        await _registered(r)
        assert (await r.row())["state"] == "created"
        assert len(r.at_rivya()) == 1


async def test_other_endpoints_of_the_account_are_never_touched(database_url: str) -> None:
    async with room(database_url) as r:
        await r.world.register(url=f"{r.public_url}/rivya/webhook/not-a-key-of-ours")
        before = r.at_rivya()[0].as_json()
        await _registered(r)
        await _registered(r)
        assert r.at_rivya()[0].as_json() == before
        assert r.calls("webhooks.delete") == r.calls("webhooks.rotate") == 0


async def test_without_any_secret_everything_is_refused(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await r.start()
        await replica.keyring.load()
        await r.world.register()
        assert await replica.accept(await r.deliver()) == Refused(Reason.NO_SECRET)
