"""PostgreSQL fails over: connections that lead to a standby are replaced, and `/readyz` says so meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import pytest
from sqlalchemy import make_url, text

from app.core.database import Database
from app.core.drivers import RawPostgres
from app.core.errors import DatabaseUnavailable
from app.ledger.tables import generations
from tests.support.api_harness import ApiHarness, open_api
from tests.support.clock import BUSY
from tests.support.ports import free_port
from tests.support.postgres import PostgresCluster
from tests.support.reports import webhook
from tests.support.tcp_balancer import balancing

CONNECTIONS = 3


async def _record(api: ApiHarness, name: str) -> None:
    await api.record(webhook(name, "succeeded"))


async def _write(api: ApiHarness, name: str) -> None:
    async with api.room.database.transaction() as connection:
        await connection.execute(text("UPDATE generations SET model = :name WHERE id = :name"), {"name": name})


@pytest.mark.parametrize("refused", [_record, _write])
async def test_one_refusal_has_both_pools_write_again_once_the_name_leads_to_the_writer(
    postgres_url: str, refused: Callable[[ApiHarness, str], Awaitable[None]]
) -> None:
    """Each connection keeps what it was opened with, as one to a standby does."""
    async with open_api(postgres_url) as api:
        await _name_leads_to(postgres_url, "reader")
        await _connect(api.room.database)
        await _name_leads_to(postgres_url, "writer")
        with pytest.raises(DatabaseUnavailable) as failed:
            await refused(api, "refused")
        assert failed.value.reason.startswith("25006")
        for pool in (_record, _write):
            await asyncio.gather(*(pool(api, f"{pool.__name__}_{n}") for n in range(CONNECTIONS)))
        assert len(await api.room.rows(generations)) == CONNECTIONS
        assert not await api.room.database.is_read_only()


async def test_what_a_nat_has_forgotten_costs_one_second_and_is_replaced(postgres_url: str) -> None:
    """In both pools, under parallel load: what is sent on such a connection is lost without an error."""
    target = make_url(postgres_url)
    port = free_port()
    async with balancing(port, [target.port or 0]) as nat, open_api(target.set(port=port).render_as_string()) as api:
        await _connect(api.room.database)
        assert isinstance(api.room.database.direct, RawPostgres)
        api.room.database.direct.checks.unchecked_seconds = 0.0
        nat.forget()
        async with asyncio.timeout(1 + BUSY):
            await asyncio.gather(*(pool(api, f"{n}") for pool in (_record, _write) for n in range(2 * CONNECTIONS)))
        assert (await api.admin.get("/readyz")).status_code == 200


async def test_not_ready_while_the_name_leads_to_a_reader(postgres_url: str) -> None:
    async with open_api(postgres_url) as api:
        await _name_leads_to(postgres_url, "reader")
        answer = await api.admin.get("/readyz")
        assert answer.status_code == 503
        [failed] = [check for check in answer.json()["checks"] if not check["ok"]]
        assert (failed["name"], failed["detail"].partition(":")[0]) == ("database", "answers, but takes no writes")
        await _name_leads_to(postgres_url, "writer")
        await api.admin.get("/readyz")  # replaces what leads to the reader
        assert (await api.admin.get("/readyz")).status_code == 200


async def test_not_ready_while_intake_has_no_connection_left(postgres_url: str) -> None:
    async with open_api(postgres_url) as api, AsyncExitStack() as taken:
        direct = api.room.database.direct
        assert isinstance(direct, RawPostgres)
        for _ in range(4):
            await taken.enter_async_context(direct.transaction())
        assert (await api.admin.get("/readyz")).status_code == 503
        await taken.aclose()
        assert (await api.admin.get("/readyz")).status_code == 200


async def test_of_several_hosts_the_one_that_takes_writes_is_used(postgres_url: str) -> None:
    writer = make_url(postgres_url)
    with PostgresCluster(default_transaction_read_only="on") as reader:
        operator = await asyncpg.connect(reader.url("postgres").replace("+asyncpg", ""))
        await operator.execute("SET default_transaction_read_only = off")
        await operator.execute(f'CREATE DATABASE "{writer.database}"')
        await operator.close()
        hosts = [f"127.0.0.1:{reader.port}", f"127.0.0.1:{writer.port}"]
        url = writer.set(host=None, port=None, query={"host": hosts}).render_as_string()
        async with open_api(url) as api:
            await _record(api, "direct")
            await _write(api, "engine")
            assert (await api.admin.get("/readyz")).status_code == 200


async def _connect(database: Database) -> None:
    """As many connections in each pool."""
    assert isinstance(database.direct, RawPostgres)
    async with AsyncExitStack() as open_ones:
        for _ in range(CONNECTIONS):
            await open_ones.enter_async_context(database.direct.transaction())
            await open_ones.enter_async_context(database.read())


async def _name_leads_to(url: str, what: str) -> None:
    operator = await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string())
    await operator.execute("SET default_transaction_read_only = off")
    setting = "SET default_transaction_read_only = on" if what == "reader" else "RESET default_transaction_read_only"
    await operator.execute(f'ALTER DATABASE "{make_url(url).database}" {setting}')
    await operator.close()
