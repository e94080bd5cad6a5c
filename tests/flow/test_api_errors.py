"""Errors over HTTP: always Rivya's shape, always with the request's id, never with what went wrong inside."""

import pytest
import structlog
from fastapi import Request
from structlog.testing import capture_logs

from app.core.errors import Overloaded
from app.core.middleware import HTTP_REQUESTS
from tests.support.api_harness import ApiHarness, error_of, open_api
from tests.support.metric_values import value

SECRET = "postgresql://user:hunter2@db/receiver"


class Accident(Exception):
    """Nobody foresaw it."""


def add_accidents(api: ApiHarness) -> None:
    @api.app.get("/accident")
    async def accident() -> None:
        raise Accident(SECRET)

    @api.app.get("/overloaded")
    async def overloaded(request: Request) -> None:
        raise Overloaded


async def test_what_nobody_foresaw_is_logged_and_not_told(sqlite_url: str) -> None:
    async with open_api(sqlite_url) as api:
        add_accidents(api)
        with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
            answer = await api.stranger.get("/accident")
        assert error_of(answer) == (500, "internal_error")
        assert SECRET not in answer.text
        [entry] = logs
        assert (entry["event"], entry["error"], entry["route"]) == ("request.failed", "Accident", "/accident")
        assert entry["request_id"] == answer.headers["x-request-id"]


async def test_an_error_says_when_to_come_again(sqlite_url: str) -> None:
    async with open_api(sqlite_url) as api:
        add_accidents(api)
        answer = await api.stranger.get("/overloaded")
        assert error_of(answer) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1"


async def test_a_database_that_is_away_is_told_as_such() -> None:
    async with open_api("postgresql+asyncpg://nobody@127.0.0.1:1/none") as api:
        for path in ("generations", "generations/g", "generations/g/transitions", "deliveries", "deliveries/e"):
            answer = await api.client.get(f"/api/v1/{path}")
            assert error_of(answer) == (503, "database_unavailable")
            assert answer.headers["retry-after"] == "5"
        assert error_of(await api.writer.put("/api/v1/generations/g")) == (503, "database_unavailable")


@pytest.mark.parametrize("path", ["/", "/nothing", "/api/v1/", "/api/v1/generations/g/nothing", "/api/v2/generations"])
async def test_where_there_is_nothing_nothing_is_found(sqlite_url: str, path: str) -> None:
    async with open_api(sqlite_url) as api:
        assert error_of(await api.client.get(path)) == (404, "not_found")


async def test_another_method_is_told_which_ones_there_are(sqlite_url: str) -> None:
    async with open_api(sqlite_url) as api:
        answer = await api.admin.delete("/api/v1/generations/g")
        assert error_of(answer) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD, PUT"


async def test_a_callers_plain_request_id_is_kept(sqlite_url: str) -> None:
    async with open_api(sqlite_url) as api:
        answer = await api.stranger.get("/nothing", headers={"X-Request-Id": "mine-1.a_B"})
        assert answer.json()["error"]["requestId"] == answer.headers["x-request-id"] == "mine-1.a_B"


@pytest.mark.parametrize("given", ["", "x" * 65, "two words", "a\tb", 'quoted"', "<script>"])
async def test_any_other_request_id_is_replaced(sqlite_url: str, given: str) -> None:
    async with open_api(sqlite_url) as api:
        answer = await api.stranger.get("/livez", headers={"X-Request-Id": given})
        assert answer.headers["x-request-id"].startswith("req_")


async def test_requests_are_counted_by_route_and_never_by_path(sqlite_url: str) -> None:
    def count(route: str, status: int) -> float:
        return value(HTTP_REQUESTS.labels(route, "GET", status))

    async with open_api(sqlite_url) as api:
        template = "/api/v1/generations/{generation_id}"
        before = count(template, 404), count("none", 404)
        await api.client.get("/api/v1/generations/whatever")
        await api.client.get("/whatever")
        assert (count(template, 404), count("none", 404)) == (before[0] + 1, before[1] + 1)
