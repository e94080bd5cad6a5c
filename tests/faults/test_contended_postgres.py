"""Another session holds what deliveries need: 503 with `Retry-After`, no 2xx without a row, then well again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.support.failing_database import Failing, failing

HELD = {
    "the row of an event that comes again": "SELECT FROM deliveries WHERE event_id = 'evt_known' FOR UPDATE",
    "the table, as a migration does": "LOCK TABLE deliveries IN SHARE MODE",
}
STARTED = "INSERT INTO generations SELECT (jsonb_populate_record(g, $1::jsonb)).* FROM generations AS g LIMIT 1"
SAME_EVENT = "INSERT INTO deliveries SELECT (jsonb_populate_record(d, $1::jsonb)).* FROM deliveries AS d LIMIT 1"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'"
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = $1"
LOCK_TIMEOUT = 5.0
"""Seconds: what ends sooner was ended by something else."""


@asynccontextmanager
async def _operator(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize("what", HELD)
async def test_a_lock_that_another_session_keeps_is_not_now_and_is_forgotten_when_it_goes(
    postgres_url: str, tmp_path: Path, what: str
) -> None:
    async with _operator(postgres_url) as operator, failing(postgres_url, tmp_path) as service:
        await service.recovered()
        assert (await service.deliver("evt_known")).status_code == 200
        holding = operator.transaction()
        await holding.start()
        await operator.execute(HELD[what])
        _assert_not_now(await service.deliver("evt_known"))
        await holding.rollback()
        await service.recovered()
        assert (await service.deliver("evt_known")).status_code == 200


async def test_chosen_as_the_victim_of_a_deadlock_it_is_not_now_and_the_same_delivery_is_taken_when_it_comes_again(
    postgres_url: str, tmp_path: Path
) -> None:
    name = postgres_url.rpartition("/")[2]
    async with _operator(postgres_url) as operator, _operator(postgres_url) as looking:
        await operator.execute(
            f"ALTER DATABASE \"{name}\" SET deadlock_timeout = '3s'"
        )  # whoever looks first is chosen
        async with failing(postgres_url, tmp_path) as service:
            await service.recovered()
            await operator.execute("SET deadlock_timeout = '1h'")
            open_one = '{"id": "task_evt_both", "status": "processing", "tracking": "watching", "settled_at": null}'
            await operator.execute(STARTED, open_one)
            # Deliveries first, then generations: the other way round than we write.
            writing = operator.transaction()
            await writing.start()
            await operator.execute(SAME_EVENT, '{"event_id": "evt_both"}')
            delivering = asyncio.create_task(service.deliver("evt_both"))
            await _somebody_waits(service, looking, name)
            await operator.execute("SELECT FROM generations WHERE id = 'task_evt_both' FOR UPDATE")
            _assert_not_now(await delivering)
            await writing.rollback()
            await service.recovered()
            assert (await service.deliver("evt_both")).status_code == 200
            await _was_a_deadlock(service, looking, name)
            await service.polled()


async def _somebody_waits(service: Failing, looking: asyncpg.Connection, name: str) -> None:
    """Our receiver has locked the generation, and waits for who inserts the same event."""
    async with asyncio.timeout(LOCK_TIMEOUT):
        while not await looking.fetchval(WAITING, name):
            await service.wait_briefly()


async def _was_a_deadlock(service: Failing, looking: asyncpg.Connection, name: str) -> None:
    """PostgreSQL says so; it counts with a second's delay."""
    async with asyncio.timeout(30):
        while not await looking.fetchval(DEADLOCKS, name):
            await service.wait_briefly()


async def test_statements_that_run_out_of_time_are_not_now_and_well_again_when_the_lock_goes(
    postgres_url: str, tmp_path: Path
) -> None:
    """The URL sets the time-out: what we set as we connect prevails over `ALTER ROLE … SET`."""
    async with (
        _operator(postgres_url) as operator,
        failing(f"{postgres_url}?options=-cstatement_timeout%3D200", tmp_path) as service,
    ):
        await service.recovered()
        assert (await service.deliver("evt_known")).status_code == 200
        for statement in HELD.values():
            holding = operator.transaction()
            await holding.start()
            await operator.execute(statement)
            started = asyncio.get_running_loop().time()
            _assert_not_now(await service.deliver("evt_known"))
            assert asyncio.get_running_loop().time() - started < LOCK_TIMEOUT
            await holding.rollback()
            await service.recovered()
            assert (await service.deliver("evt_known")).status_code == 200
        await service.polled()


def _assert_not_now(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
