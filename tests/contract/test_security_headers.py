"""Pages can't be framed, sniffed or made to run anybody else's code; no answer of the API is kept by a cache."""

import pytest

from app.core.auth import Role
from tests.support.asgi_service import TOKENS, serve


async def test_the_page_of_the_documentation_runs_no_code_but_its_own(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    async with serve(monkeypatch, sqlite_url) as (_, client):
        answer = await client.get("/docs")
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("path", ["/api/v1/generations", "/api/v1/endpoint", "/livez", "/nowhere"])
async def test_no_answer_is_sniffed_or_kept_by_a_cache_on_the_way(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str, path: str
) -> None:
    async with serve(monkeypatch, sqlite_url) as (_, client):
        answer = await client.get(path, headers={"Authorization": f"Bearer {TOKENS[Role.ADMIN]}"})
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
