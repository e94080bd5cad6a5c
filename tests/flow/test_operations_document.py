"""docs/operations.md: what it says of backup, restore, moving, a lost key and a lost database works as it is shown."""

import asyncio
import random
import shutil
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy import make_url

from app.sandbox.server import ServedSandbox, serve_sandbox
from tests.soak.load import Load
from tests.support.commands import Ended, command, program
from tests.support.documents import blocks, section
from tests.support.postgres_install import find_binaries
from tests.support.receivers import Receiver, environment, receiver

OPERATIONS = "docs/operations.md"
ANSWERED = 20
"""Outcomes that were answered before a backup begins."""
SQLITE = "sqlite+aiosqlite:///./receiver.db"
NO_POLLS = "60"
"""Seconds of grace. A poll that comes before a callback would settle what the callback is to settle."""


def libpq(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


async def ran(script: str, directory: Path, **variables: str) -> Ended:
    """Run a shell block of the document as it is shown, with the Python of the service and PostgreSQL's programs."""
    path = f"{Path(sys.executable).parent}:{find_binaries()}:/usr/bin:/bin"
    words = ("bash", "-euo", "pipefail", "-c", script)
    ended = await program(*words, environment={"PATH": path, **variables}, directory=directory)
    assert ended.status == 0, f"{script}\n{ended.output}\n{ended.errors}"
    return ended


async def settled_one(service: Receiver) -> str:
    generation_id = await service.create(seconds=0.1)
    assert (await service.settled(generation_id))["tracking"]["settled_by"] == "webhook"
    return generation_id


async def stop(service: Receiver) -> int:
    port = service.process.port
    assert await asyncio.to_thread(service.process.terminate) == 0
    return port


async def is_as_before(rivya: ServedSandbox, url: str, directory: Path, port: int, generation_id: str) -> None:
    """A receiver on `url` knows the generation, has adopted the endpoint, and verifies new deliveries."""
    async with receiver(rivya, url, directory, port=port, RECEIVER_POLL_GRACE=NO_POLLS) as service:
        answer = await service.client.get(f"/api/v1/generations/{generation_id}")
        assert answer.json()["status"] == "succeeded", answer.text
        assert [step[1] for step in await service.steps(generation_id)][-1] == "succeeded"
        await settled_one(service)
        [usage] = (await service.client.get("/api/v1/usage")).json()["data"]
        assert (usage["generations"], usage["open"]) == (2, 0)
        assert len(rivya.sandbox.endpoints.by_id) == 1


@dataclass(frozen=True)
class BackedUp:
    """What a backup must hold: outcomes that were answered 200 before it began, and the feed as it was read."""

    outcomes: dict[str, str]
    events: frozenset[tuple[str, str]]
    cursor: str


async def read_on(service: Receiver, cursor: str | None = None) -> tuple[frozenset[tuple[str, str]], str]:
    """The generations and types of the events after `cursor`, to the end of the feed, and the cursor there."""
    events, has_more = set[tuple[str, str]](), True
    while has_more:
        place = {} if cursor is None else {"after": cursor}
        page = (await service.client.get("/api/v1/events", params={**place, "limit": 1000})).json()
        assert not page.get("gap")
        read = [(event["generation"]["id"], event["type"]) for event in page["data"]]
        assert events.isdisjoint(read)
        assert len(read) == len(set(read))
        events, cursor, has_more = events | set(read), page["next_cursor"], page["has_more"]
    assert cursor is not None
    return frozenset(events), cursor


async def backed_up_under_load(rivya: ServedSandbox, service: Receiver, backup: Coroutine[Any, Any, Ended]) -> BackedUp:
    load = Load(rivya.sandbox, service.process.url, random.Random(1))
    loading = asyncio.create_task(load.run())
    async with asyncio.timeout(30):
        while len(load.account.truth) < ANSWERED:
            await asyncio.sleep(0)
    held = BackedUp(dict(load.account.truth), *await read_on(service))
    await backup
    load.stop()
    await loading
    assert len(load.account.truth) > len(held.outcomes), "nothing was written meanwhile"
    assert load.account.wrong == []
    return held


async def goes_on_from(held: BackedUp, rivya: ServedSandbox, url: str, directory: Path, port: int) -> None:
    """A receiver on `url` knows these outcomes, verifies new deliveries with the same secret, and its feed goes on."""
    async with receiver(rivya, url, directory, port=port, RECEIVER_POLL_GRACE=NO_POLLS) as service:
        for generation_id, status in held.outcomes.items():
            answer = await service.client.get(f"/api/v1/generations/{generation_id}")
            assert answer.json()["status"] == status, answer.text
        newest, events, cursor = await settled_one(service), frozenset[tuple[str, str]](), held.cursor
        while (newest, "generation.succeeded") not in events:
            more, cursor = await read_on(service, cursor)
            events |= more
        assert events.isdisjoint(held.events), "the feed repeats what was read before"
        assert {(id_, f"generation.{status}") for id_, status in held.outcomes.items()} <= events | held.events
        assert len(rivya.sandbox.endpoints.by_id) == 1


async def test_sqlite_is_backed_up_under_load_and_restored(tmp_path: Path) -> None:
    backup, restore, *_ = blocks(section(OPERATIONS, "## Backup and restore"), "sh")
    async with serve_sandbox() as rivya:
        async with receiver(rivya, SQLITE, tmp_path) as service:
            held = await backed_up_under_load(rivya, service, ran(backup, tmp_path))
            port = await stop(service)
        (tmp_path / "receiver.db").unlink()
        await ran(restore, tmp_path)
        await goes_on_from(held, rivya, SQLITE, tmp_path, port)


async def test_postgresql_is_backed_up_under_load_and_restored(postgres_url: str, tmp_path: Path) -> None:
    *_, backup, restore = blocks(section(OPERATIONS, "## Backup and restore"), "sh")
    pg = libpq(postgres_url)
    async with serve_sandbox() as rivya:
        async with receiver(rivya, postgres_url, tmp_path) as service:
            held = await backed_up_under_load(rivya, service, ran(backup, tmp_path, PG=pg))
            port = await stop(service)
        await ran('psql "$PG" --command "DELETE FROM generations" --command "DELETE FROM endpoints"', tmp_path, PG=pg)
        await ran(restore, tmp_path, PG=pg)
        await goes_on_from(held, rivya, postgres_url, tmp_path, port)


async def test_a_record_moves_from_sqlite_to_postgresql(empty_postgres_url: str, tmp_path: Path) -> None:
    [copy] = blocks(section(OPERATIONS, "## Moving from SQLite to PostgreSQL"), "sh")
    async with serve_sandbox() as rivya:
        async with receiver(rivya, SQLITE, tmp_path, RECEIVER_POLL_GRACE=NO_POLLS) as service:
            generation_id = await settled_one(service)
            port = await stop(service)
        copied = await ran(copy, tmp_path, PG=libpq(empty_postgres_url))
        assert "generations: 1" in copied.output.splitlines()
        await is_as_before(rivya, empty_postgres_url, tmp_path, port, generation_id)


async def test_a_lost_encryption_key_costs_a_new_secret_and_nothing_else(postgres_url: str, tmp_path: Path) -> None:
    await a_key_is_lost(postgres_url, tmp_path)


async def test_a_lost_encryption_key_on_sqlite(tmp_path: Path) -> None:
    await a_key_is_lost(SQLITE, tmp_path)


async def a_key_is_lost(url: str, directory: Path) -> None:
    [remedy] = blocks(section(OPERATIONS, "## A lost encryption key"), "sh")
    async with serve_sandbox() as rivya:
        async with receiver(rivya, url, directory, RECEIVER_POLL_GRACE=NO_POLLS) as service:
            await settled_one(service)
            port = await stop(service)
        key = Fernet.generate_key().decode()
        settings = environment(rivya.base_url, url, port, RECEIVER_ENCRYPTION_KEYS=key)
        refused = await command("serve", settings, directory)
        assert refused.status == 2
        assert "which is not in RECEIVER_ENCRYPTION_KEYS" in refused.errors
        reset = await command(f"{remedy.strip().removeprefix('rivya-receiver ')} --yes", settings, directory)
        assert reset.output.endswith("a new secret is stored\n"), reset
        async with receiver(
            rivya, url, directory, port=port, RECEIVER_ENCRYPTION_KEYS=key, RECEIVER_POLL_GRACE=NO_POLLS
        ) as service:
            await settled_one(service)
            assert len(rivya.sandbox.endpoints.by_id) == 1


async def test_what_a_lost_database_leaves_at_rivya_is_removed_by_a_command(tmp_path: Path) -> None:
    [calls] = blocks(section(OPERATIONS, "## A lost database"), "sh")
    listing, removing = (line.removeprefix("rivya-receiver ") for line in calls.splitlines())
    async with serve_sandbox() as rivya:
        async with receiver(rivya, SQLITE, tmp_path, RECEIVER_POLL_GRACE=NO_POLLS) as service:
            generation_id = await settled_one(service)
            port = await stop(service)
        [old] = rivya.sandbox.endpoints.by_id
        (tmp_path / "receiver.db").unlink()
        async with receiver(rivya, SQLITE, tmp_path, port=port) as service:
            assert (await service.client.put(f"/api/v1/generations/{generation_id}")).status_code == 201
            assert (await service.settled(generation_id))["status"] == "succeeded"
            settings = environment(rivya.base_url, SQLITE, port)
            assert old in (await command(listing, settings, tmp_path)).output
            removed = await command(f"{removing.replace('$OLD_ID', old)} --yes", settings, tmp_path)
            assert removed.status == 0, removed
            assert old not in rivya.sandbox.endpoints.by_id
            await stop(service)
        async with receiver(rivya, SQLITE, tmp_path, port=port, RECEIVER_POLL_GRACE=NO_POLLS) as service:
            await settled_one(service)


def test_the_programs_that_the_document_uses_are_here() -> None:
    assert shutil.which("curl")
    assert (find_binaries() / "pg_dump").exists()
