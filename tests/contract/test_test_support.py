"""The tests' own ground: a server that can be broken on purpose, fresh databases, and a seal that holds."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url, text

from app.core.database import Database
from app.core.migrations import head
from tests.support.databases import Databases
from tests.support.event_loop import TidyLoop, pass_time
from tests.support.fork_client import fork_server
from tests.support.network_guard import NetworkGuard, OutsideWorldError
from tests.support.ports import Ports
from tests.support.postgres import PostgresCluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    with PostgresCluster() as running:
        yield running


async def ask(cluster: PostgresCluster) -> int:
    dsn = make_url(cluster.url("postgres")).set(drivername="postgresql").render_as_string()
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return int(await connection.fetchval("SELECT 41 + 1"))
    finally:
        await connection.close()


@pytest.mark.parametrize("mode", ["fast", "immediate", "kill"])
async def test_a_cluster_comes_back_on_its_own_port(cluster: PostgresCluster, mode: str) -> None:
    port = cluster.port
    cluster.restart(mode)  # type: ignore[arg-type]
    assert cluster.port == port
    assert await ask(cluster) == 42


async def test_a_stopped_cluster_refuses_connections(cluster: PostgresCluster) -> None:
    cluster.stop()
    with pytest.raises(ConnectionRefusedError):
        await ask(cluster)
    cluster.start()
    assert await ask(cluster) == 42


async def test_a_frozen_cluster_answers_nothing_until_it_is_resumed(cluster: PostgresCluster) -> None:
    dsn = make_url(cluster.url("postgres")).set(drivername="postgresql").render_as_string()
    connection = await asyncpg.connect(dsn)
    cluster.pause()
    answer = asyncio.ensure_future(connection.fetchval("SELECT 1"))
    done, _ = await asyncio.wait({answer}, timeout=0.2)
    cluster.resume()
    assert not done
    assert await answer == 1
    await connection.close()


async def test_a_fresh_database_is_at_the_head_of_the_migrations(database_url: str) -> None:
    database = Database(database_url)
    async with database.read() as connection:
        revision = await connection.scalar(text("SELECT version_num FROM receiver_alembic_version"))
    await database.dispose()
    assert revision == head()


async def test_a_process_that_has_just_ended_can_be_told_to_end(tmp_path: Path) -> None:
    async with fork_server() as parent:
        pid = await parent.start({}, log=tmp_path / "log", script=None)  # without settings it refuses to start
        with suppress(ProcessLookupError):
            while True:  # this event loop hears of nothing meanwhile
                os.kill(pid, 0)
        parent.send_signal(pid, signal.SIGTERM)
        assert await parent.ended(pid) == 2


def test_no_two_tests_are_given_the_same_port() -> None:
    """Not even those that run in different processes at the same time."""
    workers = [Ports({"PYTEST_XDIST_WORKER": f"gw{number}", "PYTEST_XDIST_WORKER_COUNT": "3"}) for number in range(3)]
    taken = [worker.take() for worker in workers for _ in range(1000)]
    assert len(set(taken)) == len(taken)


def test_two_fresh_databases_share_nothing(databases: Databases) -> None:
    first, second = databases.migrated(), databases.migrated()
    assert first != second
    databases.drop(first)
    databases.drop(second)


def test_a_connection_to_the_world_is_refused_and_remembered() -> None:
    guard = NetworkGuard()
    connect = guard.connecting(socket.socket.connect)
    with socket.socket() as outgoing, pytest.raises(OutsideWorldError):
        connect(outgoing, ("192.0.2.1", 443))
    assert guard.refused == ["192.0.2.1"]


def test_a_name_of_the_world_is_not_looked_up() -> None:
    guard = NetworkGuard()
    with pytest.raises(OutsideWorldError):
        guard.resolving(socket.getaddrinfo)("rivya.ai", 443)
    assert guard.refused == ["rivya.ai"]


@given(number=st.integers())
async def test_hypothesis_runs_within_the_seal(number: int) -> None:
    await asyncio.sleep(0)
    assert number == int(str(number))


def test_a_connection_that_a_server_has_at_the_end_is_cut() -> None:
    with socket.socket() as client:
        client.settimeout(10)

        async def serve() -> None:
            accepted = asyncio.Event()
            async with await asyncio.start_server(lambda *_: accepted.set(), "127.0.0.1", 0) as server:
                client.connect(server.sockets[0].getsockname())
                await accepted.wait()

        with asyncio.Runner(loop_factory=TidyLoop) as runner:
            runner.run(serve())
        assert client.recv(1) == b""
    gc.collect()  # a transport that is still open would warn


def test_time_in_which_the_machine_stands_still_is_not_counted() -> None:
    elapsed, fired = 0.0, list[bool]()

    async def pass_time() -> None:
        nonlocal elapsed
        asyncio.get_running_loop().call_later(5, fired.append, True)
        for seconds, expected in ((60.0, 0), *[(0.9, 0)] * 5, (0.9, 1)):
            elapsed += seconds
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(fired) == expected

    with asyncio.Runner(loop_factory=lambda: TidyLoop(now=lambda: elapsed)) as runner:
        runner.run(pass_time())


async def test_time_that_a_test_lets_pass_is_over_at_once() -> None:
    fired = list[bool]()
    asyncio.get_running_loop().call_later(3600, fired.append, True)
    for seconds, expected in ((3599, 0), (1, 1)):
        pass_time(seconds)
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(fired) == expected
