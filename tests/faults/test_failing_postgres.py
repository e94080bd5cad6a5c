"""PostgreSQL fails in every way it can: 503 with `Retry-After`, no 2xx without a row, well again within 5 seconds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from app.core.migrations import migrate
from tests.support.failing_database import Failing, failing, swallowing
from tests.support.postgres import PostgresCluster

RAISING = """
CREATE FUNCTION fail() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'made to fail' USING ERRCODE = '{state}'; END $$
LANGUAGE plpgsql;
CREATE CONSTRAINT TRIGGER failing AFTER INSERT ON deliveries DEFERRABLE INITIALLY {when} FOR EACH ROW
EXECUTE FUNCTION fail()
"""


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()


async def test_stopped_restarted_and_out_of_connections_it_is_waited_for(tmp_path: Path) -> None:
    with PostgresCluster(max_connections="14", superuser_reserved_connections="0") as cluster:
        url = cluster.url("postgres")
        await migrate(url)
        async with failing(url, tmp_path) as service:
            await service.recovered()
            await asyncio.to_thread(cluster.stop, "immediate")
            await service.refused()
            await asyncio.to_thread(cluster.start)
            after_stop = await service.recovered()
            await asyncio.to_thread(cluster.restart, "fast")
            after_restart = await service.recovered()
            await _run_out_of_connections(service, url)
            print(f"\nwell again after {after_stop:.1f} and {after_restart:.1f} s")  # noqa: T201
            await service.polled()


async def _run_out_of_connections(service: Failing, url: str) -> None:
    taken: list[asyncpg.Connection] = []
    plain = url.replace("+asyncpg", "")
    try:
        taken.append(await asyncpg.connect(plain))
        kick = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rivya-receiver'"
        await taken[0].execute(kick)
        while len(taken) < 14:
            try:
                taken.append(await asyncpg.connect(plain))
            except asyncpg.TooManyConnectionsError:
                await taken[0].execute(kick)
        await service.refused()
    finally:
        for connection in taken:
            await connection.close()
    await service.recovered()


@pytest.mark.parametrize("when", ["IMMEDIATE", "DEFERRED"])
async def test_deadlock_serialisation_and_statement_time_out_are_not_now(
    postgres_url: str, tmp_path: Path, when: str
) -> None:
    async with failing(postgres_url, tmp_path) as service, _connection(postgres_url) as operator:
        for state in ("40P01", "40001", "57014", "53100"):
            await operator.execute(RAISING.format(state=state, when=when))
            await service.refused()
            await operator.execute("DROP TRIGGER failing ON deliveries; DROP FUNCTION fail()")
            await service.recovered()


async def test_refusing_writes_it_is_not_now_and_well_again_at_once(postgres_url: str, tmp_path: Path) -> None:
    name = postgres_url.rpartition("/")[2]
    async with failing(postgres_url, tmp_path) as service, _connection(postgres_url) as operator:
        await service.recovered()
        kick = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
        await operator.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        await operator.execute(kick, name)
        await service.refused()
        await operator.execute("SET default_transaction_read_only = off")
        await operator.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        await operator.execute(kick, name)
        await service.recovered()
        await service.polled()


async def test_a_commit_whose_answer_is_lost_is_503_and_the_delivery_that_comes_again_is_the_same(
    postgres_url: str, tmp_path: Path
) -> None:
    host, _, name = postgres_url.rpartition("/")
    async with swallowing(int(host.rpartition(":")[2])) as proxy:
        through = f"{host.rpartition(':')[0]}:{proxy.port}/{name}"
        async with failing(through, tmp_path) as service, _connection(postgres_url) as operator:
            await service.recovered()
            lost_answers = 0
            for number in range(10):
                proxy.is_armed = True
                answer = await service.deliver(f"evt_lost_{number}")
                rows = await operator.fetchval(
                    "SELECT count(*) FROM deliveries WHERE event_id = $1", f"evt_lost_{number}"
                )
                assert answer.status_code in (200, 503), answer.text
                assert rows == 1 or answer.status_code == 503
                if answer.status_code == 503 and rows == 1:
                    lost_answers += 1
                    assert (await service.deliver(f"evt_lost_{number}")).status_code == 200
            assert lost_answers > 0, f"{proxy.swallowed} answers were swallowed, none of a delivery"
            doubled = (
                "SELECT count(*) FROM (SELECT 1 FROM transitions GROUP BY generation_id HAVING count(*) > 1) AS twice"
            )
            assert await operator.fetchval(doubled) == 0


async def test_frozen_it_is_503_within_the_patience_and_well_again_when_thawed(tmp_path: Path) -> None:
    with PostgresCluster() as cluster:
        url = cluster.url("postgres")
        await migrate(url)
        async with failing(url, tmp_path) as service:
            await service.recovered()
            cluster.pause()
            await service.refused()
            cluster.resume()
            await service.recovered()
            await service.polled()
