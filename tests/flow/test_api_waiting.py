"""Waiting for an outcome: woken by the commit, held by nothing, bounded in time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from sqlalchemy.pool import QueuePool

from tests.support.api_harness import ApiHarness, error_of, eventually, open_api
from tests.support.http_paths import HttpPath, on_both_paths
from tests.support.reports import poll, submit, webhook

LONG = {"wait": 60}
SOON = 10.0


@asynccontextmanager
async def asked(api: ApiHarness, path: str, **options: object) -> AsyncIterator["asyncio.Task[httpx.Response]"]:
    """Somebody who asks meanwhile; the answer must come long before the wait that was asked for is over."""
    asking = asyncio.create_task(api.client.get(path, **options))  # type: ignore[arg-type]
    async with asyncio.timeout(SOON):
        yield asking


@on_both_paths
async def test_a_wait_ends_with_the_commit_that_settles_it(database_url: str, http: HttpPath) -> None:
    async with open_api(database_url, http=http) as api:
        await api.record(submit("g"))
        async with asked(api, "/api/v1/generations/g", params=LONG) as asking:
            await api.parked()
            await api.record(webhook("g", "succeeded"))
            assert (await asking).json()["status"] == "succeeded"
        assert api.waiters() == 0


@on_both_paths
async def test_a_step_that_settles_nothing_does_not_end_a_wait(database_url: str, http: HttpPath) -> None:
    async with open_api(database_url, http=http) as api:
        await api.record(submit("g"))
        async with asked(api, "/api/v1/generations/g", params=LONG) as asking:
            await api.parked()
            await api.record(poll("g", "processing"))
            await api.record(webhook("g", "failed"))
            assert (await asking).json()["status"] == "failed"


@on_both_paths
async def test_a_settled_generation_is_not_waited_for(database_url: str, http: HttpPath) -> None:
    async with open_api(database_url, http=http) as api:
        await api.record(webhook("g", "failed"))
        async with asked(api, "/api/v1/generations/g", params=LONG) as asking:
            assert (await asking).json()["status"] == "failed"


@on_both_paths
async def test_a_wait_that_is_over_answers_what_is_known(database_url: str, http: HttpPath) -> None:
    async with open_api(database_url, http=http) as api:
        await api.record(submit("g"))
        answer = await api.client.get("/api/v1/generations/g", params={"wait": 0.01})
        assert (answer.status_code, answer.json()["status"]) == (200, "queued")
        assert api.waiters() == 0


@on_both_paths
async def test_a_hundred_who_wait_are_answered_by_one_read(database_url: str, http: HttpPath) -> None:
    async with open_api(database_url, http=http) as api:
        await api.record(submit("g"), submit("h"))
        async with asyncio.timeout(SOON), asyncio.TaskGroup() as group:
            paths = [f"/api/v1/generations/{'gh'[n % 2]}" for n in range(100)]
            asking = [group.create_task(api.client.get(path, params=LONG)) for path in paths]
            await api.parked(100)
            before = api.queries.reads
            await api.record(webhook("g", "succeeded"), webhook("h", "succeeded"))
        assert {task.result().json()["status"] for task in asking} == {"succeeded"}
        assert api.queries.reads == before + 1


async def test_no_connection_is_held_while_waiting(database_url: str) -> None:
    async with open_api(database_url) as api:
        await api.record(submit("g"))
        async with asked(api, "/api/v1/generations/g", params=LONG) as asking:
            await api.parked()
            pool = api.room.database.engine.pool
            assert isinstance(pool, QueuePool)
            assert pool.checkedout() == 0
            api.waiting.stop()
            await asking


@on_both_paths
async def test_a_stop_answers_at_once_what_is_known(database_url: str, http: HttpPath) -> None:
    async with open_api(database_url, http=http) as api:
        await api.record(submit("g"))
        async with asked(api, "/api/v1/generations/g", params=LONG) as asking:
            await api.parked()
            api.waiting.stop()
            assert (await asking).json()["status"] == "queued"
        async with asked(api, "/api/v1/generations/g", params=LONG) as asking:
            assert (await asking).json()["status"] == "queued"


@on_both_paths
async def test_one_who_hangs_up_takes_no_answer_from_the_others(database_url: str, http: HttpPath) -> None:
    async with open_api(database_url, http=http) as api:
        await api.record(submit("g"))
        async with asked(api, "/api/v1/generations/g", params=LONG) as asking:
            leaving = asyncio.create_task(api.client.get("/api/v1/generations/g", params=LONG))
            await api.parked(2)
            leaving.cancel()
            await api.record(webhook("g", "succeeded"))
            assert (await asking).json()["status"] == "succeeded"
            await eventually(lambda: api.waiters() == 0)


@on_both_paths
async def test_the_preference_is_told_back_and_the_query_wins(database_url: str, http: HttpPath) -> None:
    async with open_api(database_url, http=http) as api:
        await api.record(webhook("g", "succeeded"))
        response = await api.client.get("/api/v1/generations/g", headers={"Prefer": "respond-async, wait=90"})
        assert response.headers["preference-applied"] == "wait=55"
        both = await api.client.get("/api/v1/generations/g", params={"wait": 1}, headers={"Prefer": "wait=9"})
        assert "preference-applied" not in both.headers


@pytest.mark.parametrize("wait", ["-1", "soon", "nan", "inf", "1e400", ""])
@on_both_paths
async def test_a_wait_that_is_no_number_is_refused(sqlite_url: str, wait: str, http: HttpPath) -> None:
    async with open_api(sqlite_url, http=http) as api:
        answer = await api.client.get("/api/v1/generations/g", params={"wait": wait})
        assert error_of(answer) == (400, "validation_failed")
        assert answer.json()["error"]["message"].startswith("wait: ")


async def test_what_another_replica_settles_is_found_by_one_look(postgres_url: str) -> None:
    async with open_api(postgres_url) as here, open_api(postgres_url) as there:
        await here.record(submit("g"), submit("h"))
        async with (
            asked(here, "/api/v1/generations/g", params=LONG) as asking,
            asked(here, "/api/v1/generations/h", params=LONG) as other,
        ):
            await here.parked(2)
            await there.record(webhook("g", "succeeded"))
            assert not asking.done()
            assert await here.waiting.run_once() <= 0.5
            assert (await asking).json()["status"] == "succeeded"
            assert (here.queries.looks, other.done()) == (1, False)
            here.waiting.stop()
            await other


async def test_nobody_waiting_costs_no_statement(database_url: str) -> None:
    async with open_api(database_url) as api:
        assert await api.waiting.run_once() <= 0.5
        assert api.queries.looks == 0
