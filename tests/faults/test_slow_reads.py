"""Reads of callers that take long have connections and a time-out of their own: health and recording go on."""

import asyncio
import time

from sqlalchemy import text
from sqlalchemy.pool import QueuePool

from tests.support.clock import BUSY
from tests.support.receivers import TOKEN
from tests.support.reports import submit
from tests.support.service_harness import ServiceHarness, open_service

STATEMENT_SECONDS = 3.0


async def read_usage(room: ServiceHarness) -> tuple[int, str | None]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = await room.client.get("/api/v1/usage", headers=headers)
    return answer.status_code, answer.headers.get("retry-after")


async def test_reads_that_hang_take_nothing_from_health_and_recording_and_end_by_themselves(postgres_url: str) -> None:
    async with open_service(postgres_url) as room:
        database, loop = room.service.database, asyncio.get_running_loop()
        began, real_began = loop.time(), time.monotonic()
        pool = database.caller_engine.sync_engine.pool
        assert isinstance(pool, QueuePool)
        async with database.transaction() as connection:
            await connection.execute(text("LOCK TABLE usage_hours IN ACCESS EXCLUSIVE MODE"))
            reads = [asyncio.create_task(read_usage(room)) for _ in range(pool.size())]
            async with asyncio.timeout(10):
                while pool.checkedout() < pool.size():
                    await asyncio.sleep(0)
            await room.record(submit("task_1"))
            checks = {check["name"]: check["ok"] for check in (await room.client.get("/readyz")).json()["checks"]}
            assert checks["database"]
            assert not any(read.done() for read in reads)
            answers = await asyncio.gather(*reads)
        assert {status for status, _ in answers} == {503}
        assert all(retry_after is not None for _, retry_after in answers)
        # PostgreSQL goes by the real time; ours leaves out what nobody could use.
        assert time.monotonic() - real_began >= STATEMENT_SECONDS
        assert loop.time() - began < STATEMENT_SECONDS + BUSY
        assert (await read_usage(room))[0] == 200
