"""Pages can't be framed, sniffed or made to run anybody else's code; no answer of the API is kept by a cache."""

import re

import pytest

from app.core.auth import Role
from tests.support.asgi_service import TOKENS, serve

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; font-src 'self'; "
    "img-src 'self' https: data:; media-src https: 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


@pytest.mark.parametrize("path", ["/docs"])
async def test_a_page_runs_no_code_but_ours_and_needs_no_other_host(sqlite_url: str, path: str) -> None:
    async with serve(sqlite_url) as (_, client):
        answer = await client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert not re.search(r"https?:|style=|<style|<script(?! src=)", answer.text)
        files = re.findall(r'(?:src|href)="(/console/static/[^"]+)"', answer.text)
        assert len(files) >= 3
        for file in files:
            served = await client.get(file)
            assert served.status_code == 200, file
            assert served.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_a_file_of_an_earlier_release_is_not_kept_by_a_browser(sqlite_url: str) -> None:
    async with serve(sqlite_url) as (_, client):
        served = await client.get("/console/static/000000000000/docs.js", headers={"Accept-Encoding": "identity"})
        assert (served.status_code, served.headers["cache-control"]) == (200, "no-cache")
        assert served.headers["content-type"] == "text/javascript; charset=utf-8"
        assert "content-encoding" not in served.headers
        for name in ("nothing.js", "vendor/PACKAGES", "../console.py"):
            assert (await client.get(f"/console/static/000000000000/{name}")).status_code == 404


@pytest.mark.parametrize("path", ["/api/v1/generations", "/api/v1/endpoint", "/livez", "/nowhere"])
async def test_no_answer_is_sniffed_or_kept_by_a_cache_on_the_way(sqlite_url: str, path: str) -> None:
    async with serve(sqlite_url) as (_, client):
        answer = await client.get(path, headers={"Authorization": f"Bearer {TOKENS[Role.ADMIN]}"})
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
