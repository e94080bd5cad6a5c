"""`rivya-receiver generations poll` and `forget`: an operator's orders, on the database directly."""

import asyncio
import json
import socket
from pathlib import Path

import pytest
from sqlalchemy import text

from app.core.audit import audit
from app.core.errors import NotFound
from app.core.migrations import LOCK
from app.ledger.tables import deliveries, generations, transitions
from app.operations.commands import NotNow, StillOpen
from app.rivya.errors import RivyaNotFound, RivyaUnauthorized, RivyaUnavailable
from app.sandbox.server import ServedSandbox, serve_sandbox
from app.sandbox.state import Sandbox
from tests.support.commands import Ended, command, wait_for
from tests.support.ledger_harness import LedgerHarness, open_ledger
from tests.support.operations_harness import NOBODY, at_desk
from tests.support.receiver_process import ReceiverProcess
from tests.support.receivers import environment
from tests.support.reports import submit, webhook


async def order(words: str, url: str, directory: Path, *, rivya: ServedSandbox | None = None) -> Ended:
    base_url = NOBODY if rivya is None else rivya.base_url
    return await command(f"generations {words}", environment(base_url, url, 1), directory)


async def finished_generation(rivya: ServedSandbox, room: LedgerHarness) -> str:
    """A generation that Rivya has finished, and whose callback never came."""
    body = {"model": "z-image", "prompt": "a river", "params": {"sandbox": {"seconds": 0, "callback": "drop"}}}
    created = await rivya.sandbox.generations.create("default", body, key=None)
    await room.ledger.record([submit(created["id"])])
    generation_id: str = created["id"]
    return generation_id


async def test_a_poll_records_what_rivya_says_as_the_operators_word(database_url: str) -> None:
    async with serve_sandbox() as rivya, open_ledger(database_url) as room:
        generation_id = await finished_generation(rivya, room)
        async with at_desk(database_url, rivya=rivya) as desk:
            for _ in range(20):
                recorded = await desk.commands.poll(generation_id)
                if recorded.generation is not None and recorded.generation.status.is_terminal:
                    break
        last = (await room.rows(transitions))[-1]
        assert (last["to_status"], last["source"]) == ("succeeded", "operator")
        [row] = await room.rows(generations)
        assert (row["settled_by"], row["polls"]) == ("operator", 0)


async def test_a_poll_stops_where_rivya_refuses_the_key(database_url: str) -> None:
    async with serve_sandbox(Sandbox(manual=True)) as rivya, open_ledger(database_url) as room:
        generation_id = await finished_generation(rivya, room)
        rivya.sandbox.keys["rvya_sk_sandbox"].revoked = True
        async with at_desk(database_url, rivya=rivya) as desk:
            with pytest.raises(RivyaUnauthorized):
                await desk.commands.poll(generation_id)
        async with at_desk(database_url, rivya=rivya) as desk:
            with pytest.raises(NotNow, match="try again later: stopped: Rivya refuses RIVYA_API_KEY"):
                await desk.commands.poll(generation_id)
        assert len(rivya.sandbox.calls.of("generations.get")) == 1


async def test_nothing_is_asked_about_what_is_not_in_the_record(sqlite_url: str) -> None:
    async with serve_sandbox() as rivya, at_desk(sqlite_url, rivya=rivya) as desk:
        with pytest.raises(NotFound):
            await desk.commands.poll("nobody")
        assert rivya.sandbox.calls.of("generations.get") == []


async def test_a_rivya_that_is_away_or_knows_nothing_changes_nothing(sqlite_url: str) -> None:
    async with serve_sandbox() as rivya, open_ledger(sqlite_url) as room:
        await room.ledger.record([submit("g")])
        async with at_desk(sqlite_url) as desk:
            with pytest.raises(RivyaUnavailable):
                await desk.commands.poll("g")
        async with at_desk(sqlite_url, rivya=rivya) as desk:
            with pytest.raises(RivyaNotFound):
                await desk.commands.poll("g")
        [row] = await room.rows(generations)
        assert (row["status"], row["not_found_count"]) == ("queued", 0)


async def test_what_is_forgotten_is_gone_and_its_events_change_nothing(database_url: str) -> None:
    async with open_ledger(database_url) as room, at_desk(database_url) as desk:
        await room.ledger.record([submit("g"), webhook("g", "succeeded"), webhook("other", "failed")])
        await desk.commands.delete("g")
        await room.ledger.record([webhook("g", "succeeded")])
        assert [row["id"] for row in await room.rows(generations)] == ["other"]
        assert {row["generation_id"] for row in await room.rows(transitions)} == {"other"}
        bodies = {row["event_id"]: row["body"] for row in await room.rows(deliveries)}
        assert bodies == {"evt_g_succeeded": b"", "evt_other_failed": b"{}"}
        with pytest.raises(NotFound):
            await desk.commands.delete("g")


async def test_what_is_open_is_forgotten_only_when_that_is_said(sqlite_url: str) -> None:
    async with open_ledger(sqlite_url) as room, at_desk(sqlite_url) as desk:
        await room.ledger.record([submit("g")])
        with pytest.raises(StillOpen):
            await desk.commands.delete("g")
        assert len(await room.rows(generations)) == 1
        await desk.commands.delete("g", even_open=True)
        assert await room.rows(generations) == []


async def test_the_commands_say_what_was_done(sqlite_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya, open_ledger(sqlite_url) as room:
        generation_id = await finished_generation(rivya, room)
        polled = await order(f"poll {generation_id}", sqlite_url, tmp_path, rivya=rivya)
        assert (polled.status, polled.output.startswith(f"{generation_id}: ")) == (0, True)
        forgotten = await order(f"forget {generation_id} --open", sqlite_url, tmp_path)
        assert (forgotten.status, forgotten.output) == (0, f"{generation_id}: forgotten\n")
        assert "generation.forgotten" in forgotten.errors
        unknown = await order(f"poll {generation_id}", sqlite_url, tmp_path)
        assert (unknown.status, unknown.errors) == (1, f"{generation_id} is not in the record\n")


async def test_the_commands_print_json_and_leave_a_row_in_the_audit(database_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya, open_ledger(database_url) as room:
        generation_id = await finished_generation(rivya, room)
        polled = await order(f"poll {generation_id} --json", database_url, tmp_path, rivya=rivya)
        assert json.loads(polled.output)["id"] == generation_id
        forgotten = await order(f"forget {generation_id} --open --json", database_url, tmp_path)
        assert json.loads(forgotten.output) == {"object": "generation", "id": generation_id, "deleted": True}
        variables = environment(NOBODY, database_url, 1)
        replayed = await command("deliveries replay evt_none --json --apply", variables, tmp_path)
        assert (replayed.status, json.loads(replayed.output)) == (1, {"object": "list", "data": [], "applied": True})
        assert (await command("deliveries replay evt_none", variables, tmp_path)).output == ""
        repinned = await command("endpoint repin --json", variables, tmp_path)
        assert repinned.status == 1
        rows = [(row["actor"], row["action"], row["target"]) for row in await room.rows(audit)]
        assert sorted(rows) == [
            ("command line", "deliveries replay", "evt_none"),
            ("command line", "endpoint repin", None),
            ("command line", "generations forget", generation_id),
            ("command line", "generations poll", generation_id),
        ]


async def test_a_command_shows_what_it_waits_for_when_that_takes_long(postgres_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}/db"
        listed = await command("tokens list", environment(NOBODY, f"postgresql://me:hush@{place}", 1), tmp_path)
    assert listed.status == 1
    assert listed.stderr.startswith(f"waiting for the database at postgresql+asyncpg://me:***@{place}\n")
    async with open_ledger(postgres_url) as room, room.database.transaction() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        migrating = ReceiverProcess({"DATABASE_URL": postgres_url}, tmp_path, command="migrate")
        migrating.spawn()
        try:
            await asyncio.to_thread(wait_for, migrating, "waiting for the migrations, or for another process that")
            await connection.rollback()
            assert await asyncio.to_thread(migrating.exit_status) == 0
        finally:
            migrating.kill()
