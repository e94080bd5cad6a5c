"""Each call is counted under the name of its token, its route and what became of it."""

import asyncio

import pytest
import structlog

from app.core.auth import Role
from app.core.middleware import API_CALLS
from tests.support.api_harness import open_api
from tests.support.metric_values import value
from tests.support.receivers import TOKEN
from tests.support.scripted_provider import answering, scripted
from tests.support.service_harness import open_service

LIST = "/api/v1/generations"
ONE = "/api/v1/generations/{generation_id}"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def count(token: str, route: str, result: str) -> float:
    return value(API_CALLS.labels(token, route, result))


def total() -> float:
    [family] = API_CALLS.collect()
    return sum(sample.value for sample in family.samples)


@pytest.mark.parametrize(
    ("role", "method", "path", "expected"),
    [
        (Role.READ, "GET", LIST, (LIST, "succeeded")),
        (Role.ADMIN, "GET", f"{LIST}/nobody", (ONE, "refused")),
        (Role.ADMIN, "GET", f"{LIST}?limit=x", (LIST, "refused")),
        (Role.READ, "PUT", f"{LIST}/g", (ONE, "refused")),
        (Role.WRITE, "PUT", f"{LIST}/g", (ONE, "succeeded")),
    ],
)
async def test_a_call_is_counted_once_under_its_tokens_name(
    sqlite_url: str, role: Role, method: str, path: str, expected: tuple[str, str]
) -> None:
    async with open_api(sqlite_url) as api:
        before = count(role, *expected), total()
        with structlog.testing.capture_logs() as logged:
            status = (await api.clients[role].request(method, path, headers={"Traceparent": TRACEPARENT})).status_code
        assert (count(role, *expected), total()) == (before[0] + 1, before[1] + 1)
    [line] = [line for line in logged if line["event"] == "api.called"]
    assert (line["token"], line["route"], line["result"]) == (role, *expected)
    assert (line["method"], line["status"], line["trace_id"]) == (method, status, TRACEPARENT.split("-")[1])


async def test_a_call_that_failed_for_want_of_the_database_is_counted_as_failed(empty_database_url: str) -> None:
    async with open_api(empty_database_url) as api:
        before = count(Role.READ, LIST, "failed")
        assert (await api.client.get(LIST)).status_code == 503
        assert count(Role.READ, LIST, "failed") == before + 1


async def test_what_comes_without_a_token_of_ours_is_nobodys_call(sqlite_url: str) -> None:
    async with open_api(sqlite_url) as api:
        before = total()
        await api.stranger.get(LIST)
        await api.stranger.get(LIST, headers={"Authorization": "Bearer nobody-gave-me-this-token"})
        await api.stranger.get("/livez")
        assert total() == before


@pytest.mark.parametrize("given", [TRACEPARENT, "00-1", "00-" + "x" * 32 + "-" + "0" * 16 + "-01"])
async def test_the_trace_of_a_create_goes_on_to_rivya_and_stands_in_the_lines_of_its_attempts(
    sqlite_url: str, given: str
) -> None:
    attempts: list[None] = []

    async def script(writer: asyncio.StreamWriter) -> None:
        attempts.append(None)
        if len(attempts) > 1:
            await answering(b'{"id": "task_1", "status": "queued", "model": "z-image"}')(writer)

    async with scripted(script) as rivya, open_service(sqlite_url, RIVYA_BASE_URL=rivya.url) as room:
        headers = {"Traceparent": given, "Authorization": f"Bearer {TOKEN}"}
        with structlog.testing.capture_logs() as logged:
            lost = await room.client.post("/api/v1/generations", json={"model": "z-image"}, headers=headers)
            room.pass_time(minutes=2)
            await room.service.retrier.run_once()
        assert lost.status_code == 504
        is_valid = given == TRACEPARENT
        assert [heard.header("traceparent") for heard in rivya.heard] == [given if is_valid else None] * 2
        lines = [line for line in logged if line["event"].startswith("submission.")]
        assert [line["event"] for line in lines] == ["submission.unknown", "submission.resolved"]
        assert [line.get("trace_id") for line in lines] == [given.split("-")[1] if is_valid else None] * 2
