"""Started before its database, stopped in the middle of a create: what callers and Rivya are told meanwhile."""

import asyncio
import resource
import sys
from pathlib import Path

import asyncpg
import pytest

from app.cli.server import make_server
from app.core.migrations import migrate
from app.core.settings import load
from app.main import Service
from app.sandbox.faults import ApiFault
from app.sandbox.server import serve_sandbox
from bench.machine import cpu_seconds
from tests.support.check_output import checked
from tests.support.ports import free_port
from tests.support.postgres import PostgresCluster
from tests.support.receiver_process import COMMAND
from tests.support.receivers import environment, receiver


async def test_while_the_database_is_away_at_start_deliveries_are_told_to_come_again(tmp_path: Path) -> None:
    with PostgresCluster() as cluster:
        await asyncio.to_thread(cluster.stop, "fast")
        async with (
            serve_sandbox() as rivya,
            receiver(rivya, cluster.url("postgres"), tmp_path, is_ready=False) as service,
        ):
            for path in ("/readyz", "/api/v1/generations"):
                assert (await service.client.get(path)).status_code == 503
            refused = await service.client.post("/rivya/webhook/some-key", content=b"{}")
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
            await asyncio.to_thread(cluster.start)
            await service.ready()
            assert (await service.settled(await service.create(seconds=0.1)))["status"] == "succeeded"


async def test_a_role_that_may_not_create_tables_is_told_of_and_waited_for(tmp_path: Path) -> None:
    with PostgresCluster() as cluster:
        admin = cluster.url("postgres").replace("+asyncpg", "")
        await execute(admin, "CREATE ROLE app LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        url = cluster.url("postgres").replace("://receiver@", "://app@")
        async with serve_sandbox() as rivya, receiver(rivya, url, tmp_path, is_ready=False) as service:
            check = await service.check("start")
            assert (check["ok"], check["required"]) == (False, True)
            assert "InsufficientPrivilege" in check["detail"]
            assert "GRANT" in check["detail"]
            assert "GRANT" in (await checked(rivya, url))["migrations"][1]
            assert "InsufficientPrivilege" in service.process.log()
            assert await service.metric("receiver_background_failures_total", task="start") > 0
            await execute(admin, "GRANT CREATE ON SCHEMA public TO app")
            await service.ready()
            assert (await service.settled(await service.create(seconds=0.1)))["status"] == "succeeded"


async def execute(dsn: str, statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


async def test_a_database_that_others_migrate_is_waited_for(empty_database_url: str, tmp_path: Path) -> None:
    async with (
        serve_sandbox() as rivya,
        receiver(rivya, empty_database_url, tmp_path, is_ready=False, RECEIVER_MIGRATE_ON_START="false") as service,
    ):
        assert (await service.client.get("/readyz")).status_code == 503
        assert (await service.check("migrations"))["ok"] is False
        assert (await service.client.get("/api/v1/generations")).status_code == 503
        await migrate(empty_database_url)
        await service.ready()
        assert "Traceback" not in service.process.log()


async def test_told_to_stop_while_rivya_is_silent_a_create_is_answered_504_and_resolved_later(
    empty_postgres_url: str, tmp_path: Path
) -> None:
    async with asyncio.TaskGroup() as group:  # at once: each waits as long as a stop may take
        for name, url in (("sqlite", f"sqlite+aiosqlite:///{tmp_path}/receiver.db"), ("pg", empty_postgres_url)):
            directory = tmp_path / name
            directory.mkdir()
            group.create_task(_stopped_while_rivya_is_silent(url, directory))


async def _stopped_while_rivya_is_silent(empty_database_url: str, tmp_path: Path) -> None:
    port = free_port()
    async with serve_sandbox() as rivya:
        async with receiver(rivya, empty_database_url, tmp_path, port=port) as service:
            rivya.sandbox.faults.api = [ApiFault("generations.create", hang=60, when="after", times=1)]
            body = {"model": "z-image", "prompt": "a red fox", "params": {"sandbox": {"seconds": 0.1}}}
            creating = asyncio.create_task(
                service.client.post("/api/v1/generations", json=body, headers={"Idempotency-Key": "order-1"})
            )
            while not rivya.sandbox.generations.by_id:
                service.process.exit_status(within=0.01)
                await asyncio.sleep(0)
            assert await asyncio.to_thread(service.process.terminate) == 0
            answer = await creating
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "submission_unknown")
            assert "Traceback" not in service.process.log()
        [generation_id] = rivya.sandbox.generations.by_id
        async with receiver(rivya, empty_database_url, tmp_path, port=port) as service:
            again = await service.client.post("/api/v1/generations", json=body, headers={"Idempotency-Key": "order-1"})
            assert (again.status_code, again.json()["id"]) == (200, generation_id)
            assert list(rivya.sandbox.generations.by_id) == [generation_id]
            assert (await service.settled(generation_id))["status"] == "succeeded"


async def test_told_to_stop_it_is_idle_while_connections_that_are_kept_say_goodbye(
    sqlite_url: str, tmp_path: Path
) -> None:
    """Its listener is closed then, and an event loop that still asked it for connections would never rest.

    It is a child of this process, which learns how much processor time it has used.
    """
    async with serve_sandbox() as rivya, receiver(rivya, sqlite_url, tmp_path, program=COMMAND) as service:
        _, writer = await asyncio.open_connection("127.0.0.1", service.process.port)
        used = cpu_seconds(service.process.pid)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert await asyncio.to_thread(service.process.terminate) == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        writer.close()
        ended_with = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert ended_with - used < 0.25  # seconds; it says goodbye for one


async def test_a_connection_that_is_kept_is_closed_at_once_by_a_stop(sqlite_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya, receiver(rivya, sqlite_url, tmp_path) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.process.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: r\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        ended = asyncio.create_task(asyncio.to_thread(service.process.terminate))
        async with asyncio.timeout(10):
            await reader.read()
        writer.close()
        assert await ended == 0


IMPORTED = f"""#!{sys.executable}
import atexit, pathlib, sys
from app.cli import main

def write() -> None:
    loaded = [name for name, module in sys.modules.items() if module is not None]
    pathlib.Path(__file__).with_suffix(".txt").write_text(" ".join(loaded))

atexit.register(write)
main()
"""


async def test_on_a_migrated_database_it_runs_without_the_libraries_of_migrations_and_terminals(
    database_url: str, tmp_path: Path
) -> None:
    program = tmp_path / "receiver.py"
    program.write_text(IMPORTED)
    program.chmod(0o700)
    async with serve_sandbox() as rivya, receiver(rivya, database_url, tmp_path, program=program) as service:
        assert await asyncio.to_thread(service.process.terminate) == 0
    loaded = set(program.with_suffix(".txt").read_text().split())
    assert "sqlalchemy" in loaded
    assert loaded & {"alembic", "mako", "rich", "pygments", "pydantic.v1"} == set()


def test_idle_connections_outlast_those_of_balancers(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    for name, value in environment("http://127.0.0.1:1", sqlite_url, 1).items():
        monkeypatch.setenv(name, value)
    server = make_server(Service(load()))
    assert server.config.timeout_keep_alive > 60
