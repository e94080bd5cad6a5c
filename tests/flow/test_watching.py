"""The registration is looked after while we run: what somebody changes at Rivya is found, mended, counted and kept."""

from typing import Any

import pytest

from app.endpoint.repository import EndpointRepository
from app.rivya.signature import Verified
from tests.support.registration_harness import RegistrationHarness, Replica, room

A_CHECK = 400
"""Longer than the interval between two checks, jitter included."""


async def _serving(r: RegistrationHarness) -> Replica:
    replica = await r.settle(await r.start())
    r.clock.advance(seconds=A_CHECK)
    return replica


async def _events(replica: Replica) -> list[str]:
    return [entry.event for entry in await EndpointRepository(replica.database).history()]


async def test_nothing_is_asked_between_two_checks_and_one_list_at_each(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _serving(r)
        before, listed = r.sandbox.calls.counts.total(), r.calls("webhooks.list")
        for _ in range(3):
            await replica.reconciler.run_once()
        assert r.sandbox.calls.counts.total() == before + 1
        assert r.calls("webhooks.list") == listed + 1


async def test_an_endpoint_that_is_missing_is_made_again(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _serving(r)
        r.sandbox.endpoints.remove(r.at_rivya()[0])
        await r.settle(replica)
        assert [row["state"] for row in await r.rows()] == ["retired", "serving"]
        assert isinstance(await replica.accept(await r.deliver()), Verified)


@pytest.mark.parametrize(
    ("change", "event"),
    [
        ({"status": "disabled"}, "status_restored"),
        ({"url": "http://127.0.0.1:1/elsewhere"}, "url_restored"),
        ({"event_types": ["generation.failed"]}, "event_types_restored"),
    ],
)
async def test_a_field_that_differs_is_changed_in_place(database_url: str, change: dict[str, Any], event: str) -> None:
    async with room(database_url) as r:
        replica = await _serving(r)
        [endpoint], row = r.at_rivya(), await r.row()
        r.sandbox.endpoints.change(endpoint, change)
        await replica.reconciler.run_once()
        assert (endpoint.status, endpoint.url) == ("active", row["url"])
        assert endpoint.event_types == ["generation.succeeded", "generation.failed"]
        assert r.at_rivya() == [endpoint]
        assert event in await _events(replica)
        assert isinstance(await replica.accept(await r.deliver()), Verified)


@pytest.mark.parametrize("change", [{"status": "disabled"}, {"event_types": ["generation.failed"]}], ids=str)
@pytest.mark.parametrize("fault", [{"status": 400}, {"status": 200, "body": "garbage", "when": "before"}], ids=str)
async def test_where_rivya_will_not_change_it_another_is_made_before_it_goes(
    database_url: str, change: dict[str, Any], fault: dict[str, Any]
) -> None:
    async with room(database_url) as r:
        replica = await _serving(r)
        [old] = r.at_rivya()
        r.sandbox.endpoints.change(old, change)
        r.fault("webhooks.update", **fault)
        await replica.reconciler.run_once()
        assert len(r.at_rivya()) == 2
        assert old in r.at_rivya()
        await r.settle(replica)
        [new] = r.at_rivya()
        assert (new.status, new.id != old.id) == ("active", True)
        assert [row["state"] for row in await r.rows()] == ["retired", "serving"]


async def test_an_endpoint_that_is_disabled_whenever_it_is_made_is_not_made_for_ever(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _serving(r)
        r.fault("webhooks.update", status=400)
        for _ in range(7):
            for endpoint in r.at_rivya():
                endpoint.set_status("disabled", r.clock.now())
            r.clock.advance(seconds=A_CHECK)
            await replica.reconciler.run_once()
        assert r.calls("webhooks.create") == 5
        assert (await r.live())["last_error"] == "replaced_too_often"


async def test_deliveries_that_fail_at_rivya_are_reported_until_one_succeeds(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _serving(r)
        [endpoint] = r.at_rivya()
        endpoint.record_attempt(r.clock.now(), succeeded=False, disable_after=None)
        await replica.reconciler.run_once()
        await replica.health.run_once()
        row = await r.row()
        assert (row["failure_count"], row["last_failure_at"]) == (1, endpoint.last_failure_at)
        assert "deliveries_failing" in await _events(replica)
        findings = {finding.name: finding for finding in await replica.health.health_checks()}
        assert "1 failed" in findings["deliveries"].detail
        assert not findings["deliveries"].ok
        endpoint.record_attempt(r.clock.now(), succeeded=True, disable_after=None)
        r.clock.advance(seconds=A_CHECK)
        await replica.reconciler.run_once()
        findings = {finding.name: finding for finding in await replica.health.health_checks()}
        assert findings["deliveries"].ok


@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"status": 429}, {"status": 403}, {"status": 200, "body": "garbage"}, {"connection": "reset"}],
    ids=str,
)
async def test_a_rivya_that_can_not_tell_changes_nothing(database_url: str, fault: dict[str, Any]) -> None:
    async with room(database_url) as r:
        replica = await _serving(r)
        before = [endpoint.as_json() for endpoint in r.at_rivya()]
        r.fault("webhooks.list", **fault)
        r.fault("webhooks.get", **fault)
        await replica.reconciler.run_once()
        assert [endpoint.as_json() for endpoint in r.at_rivya()] == before
        assert (await r.row())["state"] == "serving"


async def test_other_endpoints_of_the_account_are_not_touched_by_any_check(database_url: str) -> None:
    async with room(database_url) as r:
        await r.world.register(url=f"{r.public_url}/rivya/webhook/not-a-key-of-ours", event_types=["generation.failed"])
        replica = await r.start()
        await r.settle(replica)
        before = r.at_rivya()[0].as_json()
        for _ in range(3):
            r.clock.advance(seconds=A_CHECK)
            await replica.reconciler.run_once()
        after = r.at_rivya()[0].as_json()
        assert {name for name in before if before[name] != after[name]} <= {"last_success_at"}


async def test_only_the_leader_looks_and_another_takes_over_when_its_lease_has_run_out(database_url: str) -> None:
    async with room(database_url) as r:
        leader = await _serving(r)
        other = await r.start(after=0)
        await leader.reconciler.run_once()
        looked = r.calls("webhooks.list")
        await other.reconciler.run_once()
        assert r.calls("webhooks.list") == looked
        r.clock.advance(seconds=16)
        await other.reconciler.run_once()
        assert r.calls("webhooks.list") == looked + 1


async def test_a_leader_that_stops_well_is_replaced_at_once(database_url: str) -> None:
    async with room(database_url) as r:
        leader = await _serving(r)
        await leader.reconciler.run_once()
        other, listed = await r.start(after=0), r.calls("webhooks.list")
        await leader.reconciler.stop()
        await other.reconciler.run_once()
        assert r.calls("webhooks.list") == listed + 1
