"""Nothing in a path, a query or a body makes any route of the whole service fail."""

import re

import pytest

from app.core.auth import Role
from tests.support.asgi_service import TOKENS, serve

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


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_nothing_in_a_path_a_query_or_a_body_makes_any_route_fail(database_url: str, text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    quoted = "".join(f"%{byte:02X}" for byte in raw)
    bodies = (raw, b'{"model":"' + raw + b'","metadata":{"a":"' + raw + b'"},"client_request_id":"\\u0000"}')
    async with serve(database_url) as (service, client):
        client.headers["Authorization"] = f"Bearer {TOKENS[Role.ADMIN]}"
        for path, methods in service.app.openapi()["paths"].items():
            for method, operation in methods.items():
                names = [each["name"] for each in operation.get("parameters", []) if each["in"] == "query"]
                query = "&".join(f"{name}={quoted}" for name in names)
                url = NAMES.sub(quoted, path) + (f"?{query}" if query else "")
                for body in bodies if method in ("post", "put", "patch") else (None,):
                    answer = await client.request(method, url, content=body)
                    assert answer.status_code < 500 or path == "/readyz", (method, url, answer.text)
