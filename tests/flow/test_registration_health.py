"""How deliveries fare at the endpoint's own path, over replicas and outages, and what /readyz makes of it."""

import asyncio
from datetime import timedelta

import pytest

from app.core.errors import DatabaseUnavailable
from app.intake.rejections import MALFORMED
from tests.support.clock import NOON
from tests.support.databases import PostgresDatabases
from tests.support.registration_harness import RegistrationHarness, Replica, room

LATER = timedelta(seconds=1)


async def _registered(r: RegistrationHarness) -> tuple[Replica, str]:
    replica = await r.start()
    await replica.reconciler.run_once()
    await replica.learn()
    await replica.health.run_once()
    return replica, (await r.row())["id"]


async def test_callbacks_are_expected_once_an_endpoint_serves(database_url: str) -> None:
    async with room(database_url) as r:
        early = await r.start()
        await early.health.run_once()
        assert not early.health.callbacks_expected()
        await _registered(r)
        await early.health.run_once()
        assert early.health.callbacks_expected()


async def test_a_refusal_at_the_secret_path_ends_the_expectation_on_every_replica(database_url: str) -> None:
    async with room(database_url) as r:
        one, endpoint_id = await _registered(r)
        other = await r.start()
        one.health.record_refused(endpoint_id, NOON)
        await one.health.run_once()
        await other.health.run_once()
        assert not one.health.callbacks_expected()
        assert not other.health.callbacks_expected()
        other.health.record_verified(endpoint_id, NOON + LATER)
        await other.health.run_once()
        await one.health.run_once()
        assert one.health.callbacks_expected()
        assert (await r.row())["refusals"] == 0


async def test_a_refusal_anywhere_else_says_nothing(database_url: str) -> None:
    async with room(database_url) as r:
        replica, _ = await _registered(r)
        replica.health.record_refused(None, NOON)
        await replica.health.run_once()
        assert replica.health.callbacks_expected()
        assert (await r.row())["last_refused_at"] is None


async def test_a_refusal_for_size_or_form_is_named_and_speaks_against_neither_secret_nor_callbacks(
    sqlite_url: str,
) -> None:
    async with room(sqlite_url) as r:
        replica, endpoint_id = await _registered(r)
        replica.health.record_malformed(None, "from anybody", NOON)
        for defect in MALFORMED.values():
            replica.health.record_malformed(endpoint_id, defect, r.clock.now())
        await replica.health.run_once()
        assert replica.health.callbacks_expected()
        checks = {check.name: check for check in await replica.health.health_checks()}
        assert not checks["deliveries"].ok
        for word in ("RECEIVER_MAX_BODY_BYTES", "Content-Encoding", "1 refused, the last at"):
            assert word in checks["deliveries"].detail
        for word in ("secret", "SCHEME", "anybody"):
            assert word not in checks["deliveries"].detail
        for word in ("RECEIVER_MAX_BODY_BYTES", "Content-Encoding"):
            assert word in checks["deliveries"].remedy  # what strangers are shown
        r.clock.advance(seconds=3601)
        assert "BODY_BYTES" not in next(
            check.detail for check in await replica.health.health_checks() if check.name == "deliveries"
        )


async def test_the_latest_times_of_all_replicas_are_kept_whoever_writes_last(database_url: str) -> None:
    async with room(database_url) as r:
        one, endpoint_id = await _registered(r)
        other = await r.start()
        one.health.record_verified(endpoint_id, NOON)
        other.health.record_verified(endpoint_id, NOON + LATER)
        other.health.record_refused(endpoint_id, NOON + 2 * LATER)
        for replica in (other, one):
            await replica.health.run_once()
        row = await r.row()
        assert row["last_verified_at"] == NOON + LATER
        assert (row["last_refused_at"], row["refusals"]) == (NOON + 2 * LATER, 1)


async def test_refusals_add_up_until_a_delivery_is_verified(database_url: str) -> None:
    async with room(database_url) as r:
        replica, endpoint_id = await _registered(r)
        for _ in range(3):
            for _ in range(2):
                replica.health.record_refused(endpoint_id, NOON)
            await replica.health.run_once()
        findings = {finding.name: finding for finding in await replica.health.health_checks()}
        assert "6 refused" in findings["deliveries"].detail
        assert not findings["deliveries"].ok
        assert not findings["deliveries"].is_required
        assert findings["signing_secret"].ok


async def test_nothing_noted_writes_nothing(database_url: str) -> None:
    async with room(database_url) as r:
        replica, _ = await _registered(r)
        before = await r.rows()
        await replica.health.run_once()
        assert await r.rows() == before


async def test_what_was_noted_while_the_database_was_away_is_written_when_it_is_back(
    postgres_databases: PostgresDatabases,
) -> None:
    url = await asyncio.to_thread(postgres_databases.migrated)
    async with room(url) as r:
        replica, endpoint_id = await _registered(r)
        replica.health.record_refused(endpoint_id, NOON)
        await asyncio.to_thread(postgres_databases.shut, url)
        with pytest.raises(DatabaseUnavailable):
            await replica.health.run_once()
        await asyncio.to_thread(postgres_databases.open, url)
        replica.health.record_refused(endpoint_id, NOON + LATER)
        await replica.health.run_once()
        row = await r.row()
        assert (row["last_refused_at"], row["refusals"]) == (NOON + LATER, 2)
