"""Replicas that send notifications: together they send each once, and what a killed one was sending is sent again."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import delete, update

from app.core.database import Database
from app.core.leases import leases
from app.notifications.models import MOST_AT_ONCE
from app.notifications.tables import notifications
from app.sandbox.server import serve_sandbox
from tests.support.receivers import Receiver, receiver
from tests.support.scripted_provider import Upstream, answering, scripted

ALLOWED = "127.0.0.1"
OK = answering(b"")
TYPES = ["generation.queued", "generation.processing", "generation.succeeded"]


async def never(_: asyncio.StreamWriter) -> None:
    """The program takes the notification, and does not answer."""
    await asyncio.Event().wait()


async def create_webhook(replica: Receiver, program: Upstream, **members: Any) -> None:
    answer = await replica.client.post("/api/v1/webhooks", json={"url": f"{program.url}/hook", **members})
    assert answer.status_code == 201, answer.text


async def until(replica: Receiver, is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await replica.client.get("/livez")


def events(program: Upstream) -> list[tuple[str, str]]:
    bodies = [json.loads(each.body) for each in program.heard]
    return [(body["data"]["id"], body["type"].removeprefix("generation.")) for body in bodies]


async def test_two_replicas_send_each_event_once_and_in_order(postgres_url: str, tmp_path: Path) -> None:
    async with (
        serve_sandbox() as rivya,
        scripted(OK) as program,
        receiver(rivya, postgres_url, tmp_path, RECEIVER_NOTIFY_ALLOW=ALLOWED) as one,
        receiver(
            rivya, postgres_url, tmp_path, RECEIVER_PUBLIC_URL=one.process.url, RECEIVER_NOTIFY_ALLOW=ALLOWED
        ) as other,
    ):
        await create_webhook(one, program, event_types=TYPES)
        created = await asyncio.gather(*((one, other)[number % 2].create(seconds=0.1) for number in range(40)))
        await until(one, lambda: Counter(kind for _, kind in events(program))["succeeded"] >= len(created))
        steps = {each: [kind for generation_id, kind in events(program) if generation_id == each] for each in created}
        for generation_id, kinds in steps.items():
            assert kinds == [status for _, status, _ in await one.steps(generation_id)]
        listed = (await other.client.get("/api/v1/notifications?limit=200")).json()["data"]
        assert {len(row["attempts"]) for row in listed if row["status"] == "delivered"} == {1}


async def test_what_a_killed_replica_was_sending_is_sent_again_and_nothing_else_is(
    postgres_url: str, tmp_path: Path
) -> None:
    async with serve_sandbox() as rivya, scripted(never) as program:
        async with receiver(rivya, postgres_url, tmp_path, RECEIVER_NOTIFY_ALLOW=ALLOWED) as one:
            await create_webhook(one, program)
            created = await asyncio.gather(*(one.create(seconds=0.1) for _ in range(20)))
            await until(one, lambda: len(program.heard) == MOST_AT_ONCE)
            one.process.kill()
        before = set(events(program))
        assert len(before) == MOST_AT_ONCE
        program.scripts[0] = OK
        await end_leases(postgres_url)
        url = f"http://127.0.0.1:{one.process.port}"
        async with receiver(
            rivya, postgres_url, tmp_path, RECEIVER_PUBLIC_URL=url, RECEIVER_NOTIFY_ALLOW=ALLOWED
        ) as other:
            await until(other, lambda: len(program.heard) >= len(created) + MOST_AT_ONCE)
            counts = Counter(events(program))
            assert {each for each, _ in counts} == set(created)
            assert {event for event, count in counts.items() if count > 1} == before


async def test_a_process_that_is_stopped_gives_back_what_it_could_not_finish(sqlite_url: str, tmp_path: Path) -> None:
    async with serve_sandbox() as rivya, scripted(never) as program:
        async with receiver(rivya, sqlite_url, tmp_path, RECEIVER_NOTIFY_ALLOW=ALLOWED) as one:
            await create_webhook(one, program)
            created = await asyncio.gather(*(one.create(seconds=0.1) for _ in range(10)))
            await until(one, lambda: len(program.heard) == MOST_AT_ONCE)
            assert one.process.terminate() == 0
        program.scripts[0] = OK
        url = f"http://127.0.0.1:{one.process.port}"
        async with receiver(
            rivya, sqlite_url, tmp_path, RECEIVER_PUBLIC_URL=url, RECEIVER_NOTIFY_ALLOW=ALLOWED
        ) as again:
            await until(again, lambda: {each for each, _ in events(program)} == set(created))


async def end_leases(url: str) -> None:
    """As if the time of all leases were over."""
    database = Database(url)
    now = datetime.now(UTC)
    async with database.transaction() as connection:
        await connection.execute(delete(leases))
        leased = update(notifications).where(notifications.c.lease_until.is_not(None))
        await connection.execute(leased.values(lease_until=now, next_attempt_at=now))
    await database.dispose()
