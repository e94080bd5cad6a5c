"""Who may call what: every route under /api/v1 asks for a token, and each for the role it needs."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.core.auth import Role
from tests.support.api_harness import ApiHarness, error_of, open_api
from tests.support.reports import webhook

READS = tuple(Role)
WRITES = (Role.WRITE, Role.WRITE_OWN, Role.ADMIN)
TABLE = {
    ("GET", "/api/v1/generations"): READS,
    ("GET", "/api/v1/generations/{generation_id}"): READS,
    ("PUT", "/api/v1/generations/{generation_id}"): WRITES,
    ("GET", "/api/v1/generations/{generation_id}/transitions"): READS,
    ("GET", "/api/v1/events"): READS,
    ("GET", "/api/v1/usage"): READS,
    ("GET", "/api/v1/deliveries"): READS,
    ("GET", "/api/v1/deliveries/{event_id}"): READS,
}
OPEN = {("GET", "/livez"), ("GET", "/readyz"), ("GET", "/metrics")}
KNOWN = {"generation_id": "g", "event_id": "evt_g_succeeded"}


def routes(api: ApiHarness) -> set[tuple[str, str]]:
    document: dict[str, Any] = api.app.openapi()
    return {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}


async def test_the_table_names_every_route(sqlite_url: str) -> None:
    async with open_api(sqlite_url) as api:
        assert routes(api) == set(TABLE) | OPEN


@pytest.mark.parametrize(("method", "path"), TABLE, ids=" ".join)
async def test_a_route_serves_the_roles_that_reach_it_and_nobody_else(sqlite_url: str, method: str, path: str) -> None:
    async with open_api(sqlite_url) as api:
        await api.record(webhook("g", "succeeded"))
        for role in Role:
            answer = await api.clients[role].request(method, path.format(**KNOWN))
            if role in TABLE[method, path] and role.is_fenced and "{" in path:
                assert error_of(answer) == (404, "not_found"), "it belongs to another token"
            elif role in TABLE[method, path]:
                assert answer.status_code == 200
            else:
                assert error_of(answer) == (403, "api_scope_denied")


@pytest.fixture(scope="module")
async def stranger(shared_sqlite_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(shared_sqlite_url) as api:
        yield api.stranger


@pytest.mark.parametrize(("method", "path"), TABLE, ids=" ".join)
@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "api_key_missing"),
        ("Bearer", "api_key_missing"),
        ("Basic dXNlcjpwYXNz", "api_key_missing"),
        ("Bearer nobody-gave-me-this-token", "api_key_invalid"),
        (b"Bearer \xff\xfe", "api_key_invalid"),
    ],
)
async def test_without_a_token_of_ours_nothing_is_told(
    stranger: httpx.AsyncClient, method: str, path: str, authorization: str | bytes | None, code: str
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    # Neither an odd parameter nor an unknown id is worth a word to somebody without a token.
    url = re.sub(r"{\w+}", "unknown", path)
    answer = await stranger.request(method, url, params={"limit": "x", "wait": "x"}, headers=headers)  # type: ignore[arg-type]
    assert error_of(answer) == (401, code)
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), sorted(OPEN))
async def test_health_and_metrics_need_no_token(sqlite_url: str, method: str, path: str) -> None:
    async with open_api(sqlite_url) as api:
        assert (await api.stranger.request(method, path)).status_code == 200
