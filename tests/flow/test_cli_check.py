"""`rivya-receiver check` tests what a deployment needs, says each result in a line, and changes nothing."""

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import make_url

from app.sandbox.accounts import SCOPES, Key
from app.sandbox.faults import ApiFault
from app.sandbox.server import serve_sandbox
from tests.support.check_output import NAMES, WITHOUT_ENDPOINT, checked, failing, read
from tests.support.commands import command
from tests.support.ports import free_port
from tests.support.receivers import API_KEY, ENCRYPTION_KEY, TOKEN, environment, receiver


def dump(database_url: str) -> list[str]:
    connection = sqlite3.connect(str(make_url(database_url).database))
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


async def test_after_a_start_all_is_well_and_nothing_is_changed_by_looking(tmp_path: Path, sqlite_url: str) -> None:
    async with serve_sandbox() as rivya:
        async with receiver(rivya, sqlite_url, tmp_path) as service:
            port = service.process.port
            assert await asyncio.to_thread(service.process.terminate) == 0
        settings = environment(rivya.base_url, sqlite_url, port)
        before = dump(sqlite_url)
        runs = [await command("check", settings, tmp_path) for _ in range(2)]
        checks = read(runs[0].output.splitlines())
        assert list(checks) == NAMES
        assert failing(checks) == set()
        assert [(run.status, run.errors) for run in runs] == [(0, "")] * 2
        assert runs[1].output == runs[0].output
        document = json.loads((await command("check --json", settings, tmp_path)).output)
        assert (document["ok"], len(document["checks"])) == (True, len(NAMES))
        for secret in (API_KEY, TOKEN, ENCRYPTION_KEY):
            assert secret not in runs[0].output
        assert dump(sqlite_url) == before
        assert not rivya.sandbox.generations.by_id
        assert len(rivya.sandbox.endpoints.by_id) == 1
        creates = [call.idempotency_key for call in rivya.sandbox.calls.of("generations.create")]
        assert len(set(creates)) == 3


async def test_a_key_that_rivya_does_not_take_is_named_and_the_rest_is_tested_all_the_same(
    tmp_path: Path, sqlite_url: str
) -> None:
    async with serve_sandbox() as rivya:
        settings = environment(rivya.base_url, sqlite_url, 8000, RIVYA_API_KEY="rvya_sk_of_nobody")
        ended = await command("check", settings, tmp_path)
    checks = read(ended.output.splitlines())
    assert ended.status == 1
    assert list(checks) == WITHOUT_ENDPOINT
    assert checks["API key valid"] == ("FAIL", "api_key_invalid; see RIVYA_API_KEY")
    assert {"database", "migrations", "Rivya reachable", "polling"} & failing(checks) == set()


async def test_bad_settings_are_told_a_line_each(tmp_path: Path) -> None:
    settings = environment("http://127.0.0.1:9", "mysql://root:hush@db/x", 8000, RECEIVER_PORT="http")
    ended = await command("check", settings, tmp_path)
    assert ended.status == 1
    assert [line.split(": ")[:2] for line in ended.output.splitlines()] == [
        ["FAIL  settings", "DATABASE_URL"],
        ["FAIL  settings", "RECEIVER_PORT"],
    ]
    document = json.loads((await command("check --json", settings, tmp_path)).output)
    assert [check["ok"] for check in document["checks"]] == [False, False]
    assert "hush" not in f"{ended.output}{document}"


@pytest.mark.parametrize("scope", ["generations:read", "generations:create", "webhooks:manage"])
async def test_a_scope_that_the_key_lacks_is_named(scope: str, sqlite_url: str) -> None:
    async with serve_sandbox() as rivya:
        rest = tuple(other for other in SCOPES if other != scope)
        rivya.sandbox.keys.add(Key("rvya_sk_narrow", scopes=rest))
        checks = await checked(rivya, sqlite_url, RIVYA_API_KEY="rvya_sk_narrow")
    assert {name for name in failing(checks) if name.startswith("scope")} == {f"scope {scope}"}
    assert checks[f"scope {scope}"] == ("FAIL", "api_scope_denied; give the key this scope at Rivya")
    assert checks["API key valid"][0] == "ok"


async def test_a_database_that_is_not_migrated_is_told_and_left_as_it_is(empty_database_url: str) -> None:
    async with serve_sandbox() as rivya:
        checks = await checked(rivya, empty_database_url)
        again = await checked(rivya, empty_database_url)
    assert list(checks) == WITHOUT_ENDPOINT
    assert {"migrations", "endpoint registered", "signing secret", "polling"} <= failing(checks)
    assert {name for name in NAMES if name.startswith(("Rivya", "API", "scope"))} & failing(checks) == set()
    assert again == checks


async def test_a_database_that_is_away_keeps_nothing_else_from_being_tested() -> None:
    away = f"postgresql://receiver:hush@127.0.0.1:{free_port()}/receiver"
    async with serve_sandbox() as rivya:
        checks = await checked(rivya, away)
    assert list(checks) == WITHOUT_ENDPOINT
    assert "can't be used (ConnectionError: 127.0.0.1:" in checks["database"][1]
    assert "hush" not in str(checks)
    assert checks["scope webhooks:manage"] == ("ok", "granted")


async def test_a_rivya_that_is_away_keeps_nothing_else_from_being_tested(sqlite_url: str) -> None:
    checks = await checked(f"http://127.0.0.1:{free_port()}", sqlite_url, RIVYA_SIGNATURE_SCHEME="morse")
    assert list(checks) == WITHOUT_ENDPOINT
    assert "see RIVYA_BASE_URL" in checks["Rivya reachable"][1]
    assert "RIVYA_SIGNATURE_SCHEME: unknown signature family" in checks["signature scheme"][1]
    assert {"settings", "public URL", "database", "migrations", "polling"} & failing(checks) == set()


async def test_what_a_failing_rivya_leaves_open_is_not_taken_for_well(sqlite_url: str) -> None:
    async with serve_sandbox() as rivya:
        rivya.sandbox.faults.api.append(ApiFault(route="generations.get", status=500))
        checks = await checked(rivya, sqlite_url)
    assert checks["Rivya reachable"][0] == "ok"
    assert checks["API key valid"] == ("FAIL", "unknown: Rivya answered 500 internal_error")
    assert "scope generations:read" in failing(checks)


async def test_a_scope_that_could_not_be_tested_is_not_taken_for_granted(sqlite_url: str) -> None:
    async with serve_sandbox() as rivya:
        rivya.sandbox.faults.api.append(ApiFault(route="generations.create", status=429))
        checks = await checked(rivya, sqlite_url)
    assert checks["scope generations:create"][1].startswith("unknown: Rivya answered 429 rate_limited")
    assert checks["scope generations:read"] == ("ok", "granted")
