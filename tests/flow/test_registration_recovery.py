"""Whatever happens between writing an endpoint down and storing its secret: one endpoint, one secret that verifies."""

from typing import Any

import pytest
from sqlalchemy import delete, update

from app.endpoint.models import State
from app.endpoint.repository import endpoint_secrets, endpoints
from app.rivya.signature import Verified
from app.sandbox.settings import SandboxSettings
from tests.support.registration_harness import RegistrationHarness, room, verify


async def _settle(r: RegistrationHarness, *, starts: int = 8) -> None:
    """Processes are started one after the other until one has nothing left to do."""
    for _ in range(starts):
        r.clock.advance(seconds=6)
        replica = await r.start()
        await replica.reconciler.run_once()
        if replica.reconciler.retry_in == 0:
            return


async def _assert_one_that_verifies(r: RegistrationHarness) -> None:
    [endpoint] = r.at_rivya()
    assert (await r.live())["rivya_id"] == endpoint.id
    keyring = (await r.start()).keyring
    await keyring.load()
    assert isinstance(verify(keyring, await r.deliver(), r.clock.now()), Verified)


@pytest.mark.parametrize(
    "fault",
    [
        {"connection": "reset"},
        {"connection": "hang_up"},
        {"status": 500},
        {"status": 504, "body": "empty"},
        {"status": 200, "body": "garbage"},
        {"status": 200, "body": "empty"},
    ],
    ids=str,
)
@pytest.mark.parametrize("when", ["after", "before"])
async def test_a_create_whose_answer_is_lost_ends_with_one_endpoint(
    database_url: str, fault: dict[str, Any], when: str
) -> None:
    async with room(database_url) as r:
        r.fault("webhooks.create", times=1, when=when, **fault)
        await _settle(r)
        assert r.calls("webhooks.create") == (1 if when == "after" else 2)
        await _assert_one_that_verifies(r)


async def test_a_secret_lost_between_rivya_and_the_database_is_replaced_not_abandoned(database_url: str) -> None:
    async with room(database_url) as r:
        await (await r.start()).reconciler.run_once()
        registered = r.at_rivya()[0]
        # As a process leaves it that is killed after Rivya answered and before it could store anything.
        async with r.database.transaction() as connection:
            lost = {"state": State.INTENDED, "rivya_id": None, "create_attempted_at": r.clock.now()}
            await connection.execute(update(endpoints).values(**lost))
            await connection.execute(delete(endpoint_secrets))
        await _settle(r)
        assert [endpoint.id for endpoint in r.at_rivya()] == [registered.id]
        assert r.calls("webhooks.delete") == 0
        await _assert_one_that_verifies(r)


async def test_a_process_killed_before_the_create_left_makes_no_second_intent(database_url: str) -> None:
    async with room(database_url) as r:
        r.fault("webhooks.create", times=1, status=429)
        await (await r.start()).reconciler.run_once()
        [before] = await r.rows()
        await _settle(r)
        assert (await r.row())["path_key"] == before["path_key"]
        await _assert_one_that_verifies(r)


@pytest.mark.parametrize("again", [{}, {"status": 200, "body": "garbage"}, {"connection": "reset"}], ids=str)
async def test_a_rotation_whose_answer_is_lost_is_repeated(database_url: str, again: dict[str, Any]) -> None:
    async with room(database_url) as r:
        r.fault("webhooks.create", times=1, when="after", connection="reset")
        if again:
            r.fault("webhooks.rotate", times=2, when="after", **again)
        await _settle(r)
        await _assert_one_that_verifies(r)


@pytest.mark.parametrize("spelling", ["{}/", "{}?", "{}#"])
async def test_an_endpoint_is_recognised_by_its_key_however_its_url_is_written(
    database_url: str, spelling: str
) -> None:
    async with room(database_url) as r:
        r.fault("webhooks.create", times=1, when="after", connection="reset")
        await (await r.start()).reconciler.run_once()
        [endpoint] = r.at_rivya()
        endpoint.url = spelling.format(endpoint.url)
        await _settle(r)
        assert r.calls("webhooks.create") == 1
        await _assert_one_that_verifies(r)


@pytest.mark.parametrize(
    "fault", [{"status": 200, "body": "garbage"}, {"status": 500}, {"connection": "reset"}], ids=str
)
async def test_an_unknown_list_makes_nothing_after_a_lost_create(database_url: str, fault: dict[str, Any]) -> None:
    async with room(database_url) as r:
        r.fault("webhooks.create", times=1, when="after", connection="reset")
        r.fault("webhooks.list", **fault)
        await _settle(r, starts=4)
        assert r.calls("webhooks.create") == 1
        assert (await r.row())["last_error"] in ("list_unreadable", "rivya_unavailable")
        r.sandbox.faults.clear()
        await _settle(r)
        await _assert_one_that_verifies(r)


async def test_a_list_that_cannot_be_read_does_not_block_the_first_registration(database_url: str) -> None:
    async with room(database_url) as r:
        r.fault("webhooks.list", status=200, body="garbage")
        await _settle(r)
        await _assert_one_that_verifies(r)


async def test_an_empty_list_right_after_a_lost_create_is_not_believed(database_url: str) -> None:
    async with room(database_url) as r:
        r.fault("webhooks.create", times=1, connection="reset")
        replica = await r.start()
        await replica.reconciler.run_once()
        for _ in range(3):
            r.clock.advance(seconds=1)
            await replica.reconciler.run_once()
        assert r.calls("webhooks.create") == 1
        assert (await r.row())["last_error"] == "create_unsettled"


async def test_a_create_that_took_effect_late_leaves_no_second_endpoint(database_url: str) -> None:
    async with room(database_url) as r:
        await (await r.start()).reconciler.run_once()
        url = r.at_rivya()[0].url
        await r.world.register(url=url)
        assert len(r.at_rivya()) == 2
        await _settle(r)
        await _assert_one_that_verifies(r)


async def test_revoked_endpoints_that_stay_listed_are_taken_as_gone(database_url: str) -> None:
    async with room(database_url) as r:
        settings: SandboxSettings = r.sandbox.settings
        settings.deleted_endpoints = "revoked"
        await (await r.start()).reconciler.run_once()
        r.sandbox.endpoints.remove(r.at_rivya()[0])
        await _settle(r)
        assert [endpoint.status for endpoint in r.at_rivya()] == ["revoked", "active"]
