"""A database that goes away in the middle of a poll: nothing is lost, and nothing is asked for twice at once."""

from collections.abc import Iterator

import pytest

from app.core.errors import DatabaseUnavailable
from app.sandbox.faults import ApiFault
from tests.support.databases import PostgresDatabases
from tests.support.polling_harness import PollingHarness, Replica, open_polling
from tests.support.postgres import PostgresCluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    with PostgresCluster() as running:
        yield running


@pytest.fixture
def url(cluster: PostgresCluster) -> str:
    return PostgresDatabases(cluster).migrated()


async def poll_and_lose_the_database(
    room: PollingHarness, replica: Replica, cluster: PostgresCluster, *, count: int = 1
) -> str:
    task = (await room.submit(replica, count))[0]
    await replica.wait_until_due(task)
    await replica.poller.run_once()
    cluster.stop("immediate")
    with pytest.raises(DatabaseUnavailable):
        await room.clock.run(replica.poller.idle())
    assert len(room.polled) == 1
    return task


async def test_what_a_poll_came_to_is_written_when_the_database_is_back(cluster: PostgresCluster, url: str) -> None:
    async with open_polling(url) as room:
        replica = await room.replica()
        room.sandbox.faults.api.append(ApiFault(status=500))
        task = await poll_and_lose_the_database(room, replica, cluster)
        cluster.start()
        await replica.poller.run_once()
        row = await replica.row(task)
        assert (row["failures"], row["lease_until"]) == (1, None)


async def test_an_outcome_found_while_it_is_away_is_asked_for_again(cluster: PostgresCluster, url: str) -> None:
    async with open_polling(url) as room:
        replica = await room.replica()
        task = await poll_and_lose_the_database(room, replica, cluster)
        cluster.start()
        await replica.poller.run_once()
        row = await replica.row(task)
        assert row["last_error"] == "not_recorded database_unavailable"
        await room.sandbox.settle(task)
        await replica.wait_until_due(task)
        await replica.poll()
        assert (await replica.row(task))["status"] == "succeeded"


async def test_a_refusal_that_could_not_be_written_still_voids_what_this_process_booked(
    cluster: PostgresCluster, url: str
) -> None:
    async with open_polling(url) as room:
        replica = await room.replica()
        room.sandbox.faults.api.append(ApiFault(status=429, retry_after=30))
        await poll_and_lose_the_database(room, replica, cluster, count=3)
        cluster.start()


async def test_a_poller_stops_without_its_database(cluster: PostgresCluster, url: str) -> None:
    async with open_polling(url) as room:
        replica = await room.replica()
        [task] = await room.submit(replica)
        await replica.wait_until_due(task)
        await replica.poller.run_once()
        cluster.stop("immediate")
        await replica.poller.stop()
        cluster.start()
        assert (await replica.row(task))["lease_until"] is not None
