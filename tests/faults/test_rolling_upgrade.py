"""A rolling upgrade: the code of the first migration goes on serving on the new schema, beside the new one."""

import asyncio
from pathlib import Path

from sqlalchemy import text

from app.core.database import Database
from app.core.migrations import current, head, migrate
from app.sandbox.server import serve_sandbox
from tests.support.api_harness import open_api
from tests.support.previous_release import previous_command
from tests.support.receivers import Receiver, receiver

GRACE = "6"
"""Seconds. A callback may take some of them while the tables are changed, and a poll must not settle it before."""


async def use(service: Receiver) -> list[str]:
    """One generation for each way in; their ids, settled."""
    called = await service.create(seconds=0.1)
    dropped = await service.create(seconds=0.1, callback="drop")
    twice = await service.create(seconds=0.1, callback="duplicate")
    ids = [called, dropped, twice]
    ended = [await service.settled(one) for one in ids]
    assert [one["status"] for one in ended] == ["succeeded"] * 3
    assert [one["tracking"]["settled_by"] for one in ended] == ["webhook", "poll", "webhook"]
    for path in ("/api/v1/generations", "/api/v1/deliveries", "/api/v1/endpoint", f"/api/v1/generations/{called}"):
        assert (await service.client.get(path)).status_code == 200
    return ids


async def test_the_previous_release_serves_while_the_database_is_migrated_and_after(
    empty_postgres_url: str, tmp_path: Path
) -> None:
    async with serve_sandbox() as rivya:
        previous = previous_command(tmp_path)
        async with receiver(rivya, empty_postgres_url, tmp_path, program=previous, RECEIVER_POLL_GRACE=GRACE) as old:
            under_way = asyncio.gather(*(use(old) for _ in range(5)))
            await migrate(empty_postgres_url)
            ids = [one for some in await under_way for one in some]
            async with receiver(
                rivya, empty_postgres_url, tmp_path, RECEIVER_PUBLIC_URL=old.process.url, RECEIVER_POLL_GRACE=GRACE
            ) as new:
                ids += [one for some in await asyncio.gather(use(old), use(new)) for one in some]
                assert await asyncio.to_thread(old.process.terminate) == 0
                for one in ids:
                    assert (await new.settled(one))["status"] == "succeeded"
    database = Database(empty_postgres_url)
    assert await current(database) == head()
    await database.dispose()


async def test_this_release_is_ready_on_the_schema_of_a_later_one_and_leaves_it_alone(database_url: str) -> None:
    database = Database(database_url)
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE deliveries ADD COLUMN of_a_later_release TEXT"))
        await connection.execute(text("UPDATE receiver_alembic_version SET version_num = '9999'"))
    await migrate(database_url)
    assert await current(database) == "9999"
    await database.dispose()
    async with open_api(database_url) as api:
        answer = await api.admin.get("/readyz")
        assert answer.status_code == 200
        [check] = [check for check in answer.json()["checks"] if check["name"] == "migrations"]
        assert check["ok"]
        assert "made by a later release" in check["detail"]
