"""The keyring on a real database: learns in time, looks seldom, and keeps what it has when it learns nothing."""

import asyncio

import pytest
from sqlalchemy import event

from app.core.database import Database
from app.core.errors import DatabaseUnavailable
from tests.support.databases import PostgresDatabases
from tests.support.registration_harness import RegistrationHarness, Replica, room


def _count_reads(database: Database) -> list[int]:
    looks = [0]

    def count(*_: object) -> None:
        looks[0] += 1

    event.listen(database.engine.sync_engine, "begin", count)
    return looks


async def _registered(r: RegistrationHarness) -> Replica:
    replica = await r.start()
    await replica.reconciler.run_once()
    return replica


async def test_a_keyring_looks_once_a_second_and_more_often_without_a_secret(database_url: str) -> None:
    async with room(database_url) as r:
        other = await r.start()
        assert await other.keyring.run_once() == 0.5
        replica = await _registered(r)
        assert await other.keyring.run_once() == 1
        assert other.keyring.snapshot.usable_secrets == 1
        await r.settle(replica)
        assert await other.keyring.run_once() == 1


async def test_a_delivery_that_does_not_verify_finds_the_newer_secret_at_once(database_url: str) -> None:
    async with room(database_url) as r:
        other = await r.start()
        await _registered(r)
        assert await other.keyring.refresh(0)
        assert not await other.keyring.refresh(1)


@pytest.fixture
def _on_a_slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look may take longer than a delivery would wait for it."""
    monkeypatch.setattr("app.endpoint.keyring._PATIENCE", 60.0)


@pytest.mark.usefixtures("_on_a_slow_machine")
async def test_however_many_ask_there_is_one_look_a_second_and_all_of_them_learn(database_url: str) -> None:
    async with room(database_url) as r:
        other = await r.start()
        await _registered(r)
        looks = _count_reads(other.database)
        assert await asyncio.gather(*(other.keyring.refresh(0) for _ in range(200))) == [True] * 200
        once = looks[0]
        assert not any([await other.keyring.refresh(1) for _ in range(200)])
        assert looks[0] == once
        r.clock.advance(seconds=1)
        assert not await other.keyring.refresh(1)
        assert looks[0] == 2 * once


@pytest.mark.usefixtures("_on_a_slow_machine")
async def test_who_comes_in_between_and_is_patient_waits_for_the_next_look(database_url: str) -> None:
    async with room(database_url) as r:
        replica = await _registered(r)
        await replica.learn()
        version, looks = replica.keyring.version, _count_reads(replica.database)
        await asyncio.gather(*(replica.keyring.refresh(version, is_patient=True) for _ in range(200)))
        assert looks[0] == 2  # endpoints and secrets, once for all of them


async def test_the_patient_are_told_that_nothing_could_be_learnt(postgres_databases: PostgresDatabases) -> None:
    url = await asyncio.to_thread(postgres_databases.migrated)
    async with room(url) as r:
        replica = await _registered(r)
        keyring = await replica.learn()
        await asyncio.to_thread(postgres_databases.drop, url)
        with pytest.raises(DatabaseUnavailable):
            await keyring.refresh(keyring.version, is_patient=True)


async def test_a_database_that_is_away_leaves_the_keyring_as_it_was(postgres_databases: PostgresDatabases) -> None:
    url = await asyncio.to_thread(postgres_databases.migrated)
    async with room(url) as r:
        replica = await _registered(r)
        keyring = await replica.learn()
        r.clock.advance(seconds=2)
        await asyncio.to_thread(postgres_databases.drop, url)
        assert not await keyring.refresh(keyring.version)
        assert keyring.snapshot.usable_secrets == 1


async def test_a_secret_sealed_with_an_unknown_key_leaves_the_keyring_as_it_was(database_url: str) -> None:
    async with room(database_url) as r:
        other = await r.start(encryption_keys=["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="])
        await _registered(r)
        assert not await other.keyring.refresh(0)
        assert await other.keyring.run_once() == 0.5
        assert other.keyring.snapshot.usable_secrets == 0


async def test_a_path_key_is_known_before_its_secret_is_and_never_guessed(database_url: str) -> None:
    async with room(database_url) as r:
        r.fault("webhooks.create", status=503)
        replica = await _registered(r)
        keyring, row = await replica.learn(), await r.row()
        assert keyring.snapshot.endpoint_id(row["path_key"]) == row["id"]
        for wrong in (None, "", row["path_key"][:-1], row["path_key"] + "x", "\ud800", "\x00", "é"):
            assert keyring.snapshot.endpoint_id(wrong) is None
