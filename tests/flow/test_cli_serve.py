"""`rivya-receiver serve` starts on good settings only, and says in one line each what is wrong with the others."""

import asyncio
import socket
import sqlite3
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import make_url

from app.cli.server import AddressTaken, listen
from app.sandbox.server import serve_sandbox
from tests.support.commands import command, wait_for
from tests.support.ports import free_port
from tests.support.receiver_process import COMMAND, ReceiverProcess, serving
from tests.support.receivers import API_KEY, ENCRYPTION_KEY, TOKEN, environment, receiver

NOBODY = "http://127.0.0.1:9"


def stored_secrets(database_url: str) -> list[tuple[str, ...]]:
    with sqlite3.connect(str(make_url(database_url).database)) as connection:
        rows = connection.execute("SELECT id, sealed FROM endpoint_secrets ORDER BY id").fetchall()
    connection.close()
    return rows


def entries(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def test_each_bad_setting_is_one_line_that_names_it_and_shows_no_secret(tmp_path: Path) -> None:
    bad = {
        "RIVYA_API_KEY": "rvya_sk_hush hush\t",
        "RIVYA_BASE_URL": "http://rivya.ai",
        "RECEIVER_PUBLIC_URL": "https://me:hush@receiver.example.com",
        "RECEIVER_API_TOKENS": "shop:owner:hush-hush-hush-hush",
        "RECEIVER_ENCRYPTION_KEYS": "hush",
        "RECEIVER_POLL_INTERVAL": "often",
        "DATABASE_URL": "mysql://root:hush@db/receiver",
    }
    ended = await command("serve", bad, tmp_path)
    assert ended.status == 2
    assert ended.output == ""
    assert sorted(line.split(":")[0] for line in ended.errors.splitlines()) == sorted(bad)
    assert "hush" not in ended.errors


async def test_a_signature_scheme_that_is_none_stops_the_start_before_anything_is_made(tmp_path: Path) -> None:
    url, port = "sqlite+aiosqlite:///./receiver.db", free_port()
    settings = environment(NOBODY, url, port, RIVYA_SIGNATURE_SCHEME="morse", RECEIVER_PORT=str(port))
    ended = await command("serve", settings, tmp_path)
    assert ended.status == 2
    [line] = ended.errors.splitlines()
    assert line.startswith("RIVYA_SIGNATURE_SCHEME: unknown signature family: ")
    assert entries(tmp_path) == []


async def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path, sqlite_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = environment(NOBODY, sqlite_url, port, RECEIVER_PORT=str(port))
        ended = await command("serve", settings, tmp_path)
    assert ended.status not in (0, None)
    [line] = ended.errors.splitlines()
    assert line.startswith(f"RECEIVER_HOST, RECEIVER_PORT: got 127.0.0.1 and {port}; can't listen there")


def test_an_address_that_is_given_out_is_taken_for_everybody_else() -> None:
    """Also before anything is served there: of two processes started together one is told."""
    with listen("127.0.0.1", 0) as listener, pytest.raises(AddressTaken):
        listen("127.0.0.1", listener.getsockname()[1])


async def test_a_stored_secret_that_no_key_opens_stops_the_start_and_is_not_overwritten(
    tmp_path: Path, sqlite_url: str
) -> None:
    async with serve_sandbox() as rivya:
        async with receiver(rivya, sqlite_url, tmp_path) as service:
            port = service.process.port
            assert await asyncio.to_thread(service.process.terminate) == 0
        before = stored_secrets(sqlite_url)
        other = Fernet.generate_key().decode()
        settings = environment(rivya.base_url, sqlite_url, port, RECEIVER_ENCRYPTION_KEYS=other)
        ended = await command("serve", {**settings, "RECEIVER_PORT": str(port)}, tmp_path)
        assert len(rivya.sandbox.endpoints.by_id) == 1
    assert ended.status == 2
    [line] = [line for line in ended.errors.splitlines() if not line.startswith("{")]
    assert line.startswith("RECEIVER_ENCRYPTION_KEYS: a stored secret was sealed with key ")
    assert other not in ended.errors
    assert ENCRYPTION_KEY not in ended.errors
    assert len(before) == 1
    assert stored_secrets(sqlite_url) == before


async def test_a_database_that_is_away_is_waited_for_until_told_to_stop(tmp_path: Path) -> None:
    away = f"postgresql://receiver:hush@127.0.0.1:{free_port()}/receiver"
    process = ReceiverProcess(environment(NOBODY, away, free_port()), tmp_path)
    process.spawn()
    try:
        written = await asyncio.to_thread(wait_for, process, '"attempt":2')
        assert "start.database_unavailable" in written
        assert "hush" not in written
        assert await asyncio.to_thread(process.terminate) == 0
    finally:
        process.kill()
    assert "Traceback" not in process.log()


async def test_variables_that_are_not_ours_do_not_end_the_start(tmp_path: Path, sqlite_url: str) -> None:
    others = {
        "PROMETHEUS_MULTIPROC_DIR": "/nowhere",
        "WEB_CONCURRENCY": "auto",
        "NO_PROXY": "localhost,[::1],fd07::/64",
        "RECEIVER_SERVICE_HOST": "10.43.12.7",
        "RECIEVER_HOST": "10.43.12.7",
    }
    port = free_port()
    settings = {**environment(NOBODY, sqlite_url, port), **others}
    async with serving(settings, tmp_path, port=port, program=COMMAND) as process:
        assert "RECIEVER_HOST: no setting has this name; did you mean RECEIVER_HOST?" in process.log()
    checked = await command("check", settings, tmp_path)
    assert "warn  settings: RECIEVER_HOST: no setting has this name" in checked.output


async def test_a_second_process_on_a_sqlite_file_refuses_unless_forced_and_a_kill_leaves_no_lock(
    tmp_path: Path, sqlite_url: str
) -> None:
    (tmp_path / "elsewhere").symlink_to(Path(str(make_url(sqlite_url).database)))
    port = free_port()
    others = {**environment(NOBODY, f"sqlite+aiosqlite:///{tmp_path}/elsewhere", port), "RECEIVER_PORT": str(port)}
    async with serve_sandbox() as rivya, receiver(rivya, sqlite_url, tmp_path) as first:
        ended = await command("serve", others, tmp_path)
        assert ended.status == 2
        [line] = [line for line in ended.errors.splitlines() if not line.startswith("{")]
        assert line.startswith(f"DATABASE_URL: {make_url(sqlite_url).database} is used by another receiver (process ")
        assert f"(process {first.process.pid} on {socket.gethostname()})" in line
        async with serving(others, tmp_path, port=port, command="serve --force"):
            await asyncio.to_thread(first.process.kill)
        async with serving(others, tmp_path, port=port) as second:
            assert await asyncio.to_thread(second.terminate) == 0


async def test_a_file_env_is_honoured_and_the_environment_wins_over_it(tmp_path: Path, sqlite_url: str) -> None:
    async with serve_sandbox() as rivya:
        port = free_port()
        settings = {**environment(rivya.base_url, sqlite_url, port), "RECEIVER_PORT": "1"}
        (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        async with serving({}, tmp_path, port=port, program=COMMAND) as process:
            assert await asyncio.to_thread(process.terminate) == 0
    for secret in (API_KEY, TOKEN, ENCRYPTION_KEY):
        assert secret not in process.log()
