"""What the OpenAPI document allows, and what it does not, is asked of the whole service: no 5xx, answers as said."""

import asyncio
import re
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from app.core.access import Role
from tests.contract.test_roles import TOKENS, serve

HOSTILE = (
    "\x00",
    "\ud800",
    "a" * 1000,
    "'; DROP TABLE generations; --",
    "../../etc/passwd",
    "%00",
    "\u202e",
    "{",
    "[" * 500,
)
NAMES = re.compile(r"{\w+}")


async def _document(monkeypatch: pytest.MonkeyPatch, url: str) -> dict[str, Any]:
    async with serve(monkeypatch, url) as (service, _):
        return service.app.openapi()


def test_every_operation_answers_what_its_document_says_to_anything_it_allows(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    document = asyncio.run(_document(monkeypatch, database_url))
    schema = schemathesis.openapi.from_dict(document)
    cases: list[Any] = []
    found: Any = schema.get_all_operations()

    for result in found:
        operation = result.ok()

        @settings(max_examples=8, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy())
        def collect(case: Any) -> None:
            cases.append(case)

        collect()

    async def run() -> None:
        async with serve(monkeypatch, database_url) as (_, client):
            for case in cases:
                await _ask(client, case)

    asyncio.run(run())
    assert len(cases) > 100


async def _ask(client: httpx.AsyncClient, case: Any) -> None:
    request = case.as_transport_kwargs(base_url="http://receiver")
    headers = {**request.pop("headers", {}), "Authorization": f"Bearer {TOKENS[Role.ADMIN]}"}
    keep = {name: value for name, value in request.items() if name in ("params", "json", "data", "content", "files")}
    if isinstance(keep.get("data"), bytes):
        keep["content"] = keep.pop("data")
    try:
        made = client.build_request(request["method"], request["url"], headers=_sendable(headers), **keep)
        made.read()
    except (UnicodeError, httpx.InvalidURL, AttributeError, TypeError, ValueError):
        return  # no HTTP client can send this
    answer = await client.send(made)
    assert answer.status_code < 500 or answer.status_code in (503, 504), (made.method, made.url, answer.text)
    said = case.operation.definition.raw["responses"]
    assert str(answer.status_code) in said or "default" in said, (made.method, made.url, answer.status_code)
    if answer.status_code >= 400 and str(made.url.path).startswith("/api/"):
        assert set(answer.json()["error"]) == {"code", "message", "requestId"}


def _sendable(headers: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in headers.items() if str(value).isascii() and str(value).isprintable()}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_nothing_in_a_path_a_query_or_a_body_makes_any_route_fail(
    monkeypatch: pytest.MonkeyPatch, database_url: str, text: str
) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    quoted = "".join(f"%{byte:02X}" for byte in raw)
    async with serve(monkeypatch, database_url) as (service, client):
        client.headers["Authorization"] = f"Bearer {TOKENS[Role.ADMIN]}"
        for path, methods in service.app.openapi()["paths"].items():
            for method, operation in methods.items():
                names = [each["name"] for each in operation.get("parameters", []) if each["in"] == "query"]
                query = "&".join(f"{name}={quoted}" for name in names)
                url = NAMES.sub(quoted, path) + (f"?{query}" if query else "")
                for body in (
                    raw,
                    b'{"model":"' + raw + b'","metadata":{"a":"' + raw + b'"},"client_request_id":"\\u0000"}',
                ):
                    answer = await client.request(method, url, content=body if method in ("post", "put") else None)
                    assert answer.status_code != 500, (method, url, answer.text)
                    assert answer.status_code in (503, 504) or answer.status_code < 500, (method, url, answer.text)
