"""The primary of a synchronous pair is killed under load and its standby promoted: no answer is lost, all goes on."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from app.core.database import Database
from app.core.database_url import normal_url
from app.core.migrations import migrate
from app.sandbox.server import serve_sandbox
from app.sandbox.settings import SandboxSettings
from app.sandbox.state import Sandbox
from tests.soak.audit import Verdict, audit, read_all
from tests.soak.fleet import Fleet, fleet
from tests.soak.killing import come_to_an_end
from tests.soak.leader import leader
from tests.soak.load import Load
from tests.support.fork_client import fork_server
from tests.support.ports import free_port
from tests.support.postgres import USER, PostgresCluster, PostgresStandby, StopMode
from tests.support.tcp_balancer import Balancer, balancing

PROMISED = 10.0
"""Seconds from the promotion until deliveries are taken again."""
LOADED = 2.0
"""Seconds under load before the primary is killed, and after it has come back."""


@dataclass
class Pair:
    """A primary that answers a commit when its standby has it, too."""

    primary: PostgresCluster
    standby: PostgresStandby
    url: str
    name: Balancer | None
    """By which the primary is reached; None: the URL names both."""
    stack: AsyncExitStack

    async def fail_over(self, mode: StopMode) -> None:
        await asyncio.to_thread(self.primary.stop, mode)
        await asyncio.to_thread(self.standby.promote)
        if self.name is not None:
            self.name.lead_to([self.standby.port])

    async def bring_back(self) -> None:
        """The old primary: as a standby, as what manages pairs does; where a name leads elsewhere, as it was."""
        if self.name is not None:
            await asyncio.to_thread(self.primary.start)
            return
        port = self.primary.port
        await asyncio.to_thread(self.primary.close)
        returned = await asyncio.to_thread(PostgresStandby, self.standby)
        returned.port = port
        self.stack.enter_context(returned)


async def execute(cluster: PostgresCluster, statement: str) -> object:
    connection = await asyncpg.connect(cluster.url("postgres").replace("+asyncpg", ""))
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def pair(way: str) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        primary = stack.enter_context(PostgresCluster())
        await migrate(primary.url("postgres"))
        standby = stack.enter_context(PostgresStandby(primary))
        await execute(primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        await execute(primary, "SELECT pg_reload_conf()")
        while await execute(primary, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") != 1:
            await asyncio.sleep(0)
        name, hosts = None, f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        if way == "name":
            port = free_port()
            name, hosts = await stack.enter_async_context(balancing(port, [primary.port])), f"127.0.0.1:{port}"
        url = normal_url(f"postgresql://{USER}@{hosts}/postgres?target_session_attrs=read-write")
        yield Pair(primary, standby, url, name, stack)


async def serving_again(replicas: Fleet, load: Load) -> None:
    """Every replica is ready, and deliveries are taken."""
    for port in replicas.ports:
        await replicas.until_ready(port)
    before = load.account.accepted.total()
    while load.account.accepted.total() == before:
        await replicas.watch(replicas.ports[0], seconds=0.02)


@pytest.mark.parametrize(("way", "mode"), [("hosts", "kill"), ("name", "immediate")])
async def test_a_promoted_standby_goes_on_within_ten_seconds_with_all_that_was_answered(
    tmp_path: Path, way: str, mode: StopMode
) -> None:
    sandbox = Sandbox(settings=SandboxSettings(reorder_seconds=0.3, retry_delays=(0.2, 0.5, 1.0)))
    async with (
        pair(way) as servers,
        fork_server() as parent,
        serve_sandbox(sandbox) as rivya,
        fleet(parent, rivya, servers.url, tmp_path, size=2) as replicas,
    ):
        load = Load(sandbox, replicas.url, random.Random(1))
        running = asyncio.create_task(load.run())
        await serving_again(replicas, load)
        await leader(replicas)
        await replicas.watch(replicas.ports[0], seconds=LOADED)
        await servers.fail_over(mode)
        promoted_at = asyncio.get_running_loop().time()
        await serving_again(replicas, load)
        seconds = asyncio.get_running_loop().time() - promoted_at
        await leader(replicas)
        await servers.bring_back()
        await replicas.watch(replicas.ports[0], seconds=LOADED)
        await serving_again(replicas, load)
        load.stop()
        await running
        verdict = await _verdict(replicas, load, sandbox)
        assert await execute(servers.standby, "SELECT NOT pg_is_in_recovery()"), "it was not promoted"
    print(f"\nserving again after {seconds:.1f} s; {dict(load.account.answers)}")  # noqa: T201
    assert verdict.is_clean, verdict
    assert load.account.accepted.total() > 20
    assert seconds < PROMISED


async def _verdict(replicas: Fleet, load: Load, sandbox: Sandbox) -> Verdict:
    database = Database(replicas.database_url)
    try:
        await come_to_an_end(replicas, database, is_hurried=True)
        await sandbox.scheduler.drain()
        return audit(await read_all(database), load.account, sandbox)
    finally:
        await database.dispose()
