"""A changed public URL: the endpoint is moved in place, or a new one is made before the old one is removed."""

from typing import Any

import pytest

from app.rivya.signature import Verified
from tests.support.registration_harness import RegistrationHarness, room, verify


async def _registered(r: RegistrationHarness) -> None:
    await (await r.start(public_url="http://127.0.0.1:1/before")).reconciler.run_once()


async def test_the_endpoint_is_moved_in_place_and_keeps_its_secret(database_url: str) -> None:
    async with room(database_url) as r:
        await _registered(r)
        [before], stored = r.at_rivya(), await r.secrets()
        replica = await r.start()
        await replica.reconciler.run_once()
        row = await r.row()
        assert (r.calls("webhooks.create"), r.calls("webhooks.rotate")) == (1, 0)
        assert [endpoint.id for endpoint in r.at_rivya()] == [before.id]
        assert r.at_rivya()[0].url == row["url"] == f"{r.public_url}/rivya/webhook/{row['path_key']}"
        assert await r.secrets() == stored
        assert isinstance(verify(await replica.learn(), await r.deliver(), r.clock.now()), Verified)


@pytest.mark.parametrize(
    "fault", [{"status": 400}, {"status": 404}, {"status": 405, "code": "method_not_allowed"}], ids=str
)
async def test_where_rivya_moves_nothing_a_new_endpoint_serves_before_the_old_one_goes(
    database_url: str, fault: dict[str, Any]
) -> None:
    async with room(database_url) as r:
        await (await r.start(public_url=f"{r.public_url}/before")).reconciler.run_once()
        [old] = r.at_rivya()
        r.fault("webhooks.update", **fault)
        r.fault("webhooks.delete", times=1, status=503)
        replica = await r.settle(await r.start())
        assert [row["state"] for row in await r.rows()] == ["retiring", "serving"]
        assert len(r.at_rivya()) == 2
        r.clock.advance(seconds=replica.reconciler.retry_in + 0.01)
        await replica.reconciler.run_once()
        assert [row["state"] for row in await r.rows()] == ["retired", "serving"]
        [endpoint] = r.at_rivya()
        assert endpoint.id != old.id
        assert endpoint.url.startswith(r.public_url)
        assert isinstance(verify(await replica.learn(), await r.deliver(), r.clock.now()), Verified)


async def test_the_secret_of_a_replaced_endpoint_is_accepted_for_another_three_days(database_url: str) -> None:
    async with room(database_url) as r:
        await (await r.start()).reconciler.run_once()
        signed_before = await r.deliver()
        key = (await r.row())["path_key"]
        r.fault("webhooks.update", status=400)
        replica = await r.settle(await r.start(public_url=f"{r.public_url}/new"))
        keyring = await replica.learn()
        assert isinstance(verify(keyring, signed_before, r.clock.now()), Verified)
        assert keyring.snapshot.endpoint_id(key) is not None
        r.clock.advance(seconds=3 * 86_400)
        assert (await replica.learn()).snapshot.usable_secrets == 1
        assert keyring.snapshot.endpoint_id(key) is None


async def test_a_new_url_that_rivya_does_not_allow_leaves_the_old_endpoint_serving(database_url: str) -> None:
    async with room(database_url) as r:
        await _registered(r)
        before = r.at_rivya()[0].as_json()
        replica = await r.start(public_url="ftp://127.0.0.1")
        await replica.reconciler.run_once()
        assert replica.reconciler.retry_in >= 48
        row = await r.row()
        assert (row["state"], row["last_error"]) == ("created", "webhook_url_rejected")
        assert r.at_rivya()[0].as_json() == before


async def test_a_url_changed_while_nothing_was_registered_yet_is_the_one_registered(database_url: str) -> None:
    async with room(database_url) as r:
        r.fault("webhooks.create", times=1, status=429)
        await _registered(r)
        await (await r.start()).reconciler.run_once()
        assert [endpoint.url for endpoint in r.at_rivya()] == [(await r.row())["url"]]
        assert r.at_rivya()[0].url.startswith(r.public_url)


async def test_a_url_changed_after_a_lost_create_moves_what_was_made(database_url: str) -> None:
    async with room(database_url) as r:
        r.fault("webhooks.create", times=1, when="after", connection="reset")
        await _registered(r)
        replica = await r.start()
        await replica.reconciler.run_once()
        assert [endpoint.url for endpoint in r.at_rivya()] == [(await r.row())["url"]]
        assert isinstance(verify(await replica.learn(), await r.deliver(), r.clock.now()), Verified)


@pytest.mark.parametrize("ending", ["/", ""])
async def test_the_same_place_written_otherwise_moves_nothing(database_url: str, ending: str) -> None:
    async with room(database_url) as r:
        await (await r.start(public_url="http://LOCALHOST:80/here")).reconciler.run_once()
        await (await r.start(public_url=f"http://localhost/here{ending}")).reconciler.run_once()
        assert r.calls("webhooks.update") == 0
        assert len(r.at_rivya()) == 1


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 401}, {"status": 429}, {"connection": "reset"}], ids=str)
async def test_a_move_that_rivya_can_not_be_asked_for_waits_and_makes_nothing(
    database_url: str, fault: dict[str, Any]
) -> None:
    async with room(database_url) as r:
        await _registered(r)
        r.fault("webhooks.update", times=1, **fault)
        replica = await r.start()
        await replica.reconciler.run_once()
        assert r.calls("webhooks.create") == 1
        r.clock.advance(seconds=replica.reconciler.retry_in + 0.01)
        await replica.reconciler.run_once()
        assert [endpoint.url for endpoint in r.at_rivya()] == [(await r.row())["url"]]
        assert r.at_rivya()[0].url.startswith(r.public_url)


async def test_a_move_whose_answer_can_not_be_read_is_looked_at(database_url: str) -> None:
    async with room(database_url) as r:
        await _registered(r)
        r.fault("webhooks.update", times=1, when="after", status=200, body="empty")
        await (await r.start()).reconciler.run_once()
        assert r.calls("webhooks.create") == 1
        assert r.at_rivya()[0].url.startswith(r.public_url)
