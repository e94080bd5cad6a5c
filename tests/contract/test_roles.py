"""Every route of the whole service, for every role and for nobody: who is let through, and who is told why not."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from app.core.auth import Role
from app.main import Service
from tests.support.asgi_service import TOKENS, serve

READ, WRITE, ADMIN = Role.READ, Role.WRITE, Role.ADMIN
NEEDED: dict[tuple[str, str], Role | None] = {
    ("GET", "/api/v1/generations"): READ,
    ("POST", "/api/v1/generations"): WRITE,
    ("GET", "/api/v1/generations/{generation_id}"): READ,
    ("PUT", "/api/v1/generations/{generation_id}"): WRITE,
    ("GET", "/api/v1/generations/{generation_id}/transitions"): READ,
    ("GET", "/api/v1/events"): READ,
    ("GET", "/api/v1/models"): READ,
    ("GET", "/api/v1/models/{model_id}"): READ,
    ("GET", "/api/v1/credits"): READ,
    ("POST", "/api/v1/files"): WRITE,
    ("GET", "/api/v1/files/{file_id}"): READ,
    ("POST", "/api/v1/chat/completions"): WRITE,
    ("POST", "/api/v1/chat/completions/stream"): WRITE,
    ("GET", "/api/v1/chat/sessions"): READ,
    ("GET", "/api/v1/chat/sessions/{session_id}"): READ,
    ("GET", "/api/v1/usage"): READ,
    ("GET", "/api/v1/deliveries"): READ,
    ("GET", "/api/v1/deliveries/{event_id}"): READ,
    ("GET", "/api/v1/endpoint"): READ,
    ("GET", "/api/v1/endpoint/history"): ADMIN,
    ("POST", "/api/v1/endpoint/rotate-secret"): ADMIN,
    ("POST", "/api/v1/endpoint/repin"): ADMIN,
    ("POST", "/api/v1/endpoint/test"): ADMIN,
    ("GET", "/api/v1/endpoint/orphans"): ADMIN,
    ("DELETE", "/api/v1/endpoint/orphans/{rivya_id}"): ADMIN,
    ("POST", "/api/v1/generations/{generation_id}/poll"): ADMIN,
    ("DELETE", "/api/v1/generations/{generation_id}"): ADMIN,
    ("POST", "/api/v1/deliveries/replay"): ADMIN,
    ("GET", "/api/v1/rejections"): ADMIN,
    ("GET", "/api/v1/audit"): ADMIN,
    ("GET", "/api/v1/tokens"): ADMIN,
    ("POST", "/api/v1/tokens"): ADMIN,
    ("GET", "/api/v1/tokens/me"): READ,
    ("DELETE", "/api/v1/tokens/{name}"): ADMIN,
    ("PATCH", "/api/v1/tokens/{name}"): ADMIN,
    ("POST", "/api/v1/tokens/{name}/rotate"): ADMIN,
    ("GET", "/api/v1/callback-secret"): WRITE,
    ("GET", "/api/v1/webhooks"): WRITE,
    ("POST", "/api/v1/webhooks"): WRITE,
    ("GET", "/api/v1/webhooks/{endpoint_id}"): WRITE,
    ("PATCH", "/api/v1/webhooks/{endpoint_id}"): WRITE,
    ("DELETE", "/api/v1/webhooks/{endpoint_id}"): WRITE,
    ("POST", "/api/v1/webhooks/{endpoint_id}/rotate-secret"): WRITE,
    ("POST", "/api/v1/webhooks/{endpoint_id}/test"): WRITE,
    ("GET", "/api/v1/webhooks/{endpoint_id}/deliveries"): WRITE,
    ("POST", "/api/v1/webhooks/{endpoint_id}/resend"): WRITE,
    ("GET", "/api/v1/webhook-events"): WRITE,
    ("GET", "/api/v1/notifications"): WRITE,
    ("POST", "/api/v1/notifications/{notification_id}/resend"): WRITE,
    ("GET", "/livez"): None,
    ("GET", "/readyz"): None,
    ("GET", "/metrics"): None,
}
"""The least role that a route asks for; None: it asks for no token."""

SHARED = {"/api/v1/files/{file_id}", "/api/v1/chat/sessions", "/api/v1/chat/sessions/{session_id}"}
"""Rivya keeps these for the whole account, so fenced tokens do not reach them."""

ROUTES = pytest.mark.parametrize(("method", "path"), NEEDED, ids=map(" ".join, NEEDED))


@pytest.fixture(scope="module")
async def served(shared_sqlite_url: str) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    async with serve(shared_sqlite_url) as served:
        yield served


@pytest.fixture
def client(served: tuple[Service, httpx.AsyncClient]) -> httpx.AsyncClient:
    return served[1]


async def ask(client: httpx.AsyncClient, method: str, path: str, token: str | None) -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return await client.request(method, re.sub(r"{\w+}", "g", path), headers=headers)


async def test_the_table_names_every_route_of_the_service(served: tuple[Service, httpx.AsyncClient]) -> None:
    paths = served[0].app.openapi()["paths"]
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == set(NEEDED)


async def test_every_route_that_asks_for_a_token_documents_it_and_its_errors(
    served: tuple[Service, httpx.AsyncClient],
) -> None:
    paths = served[0].app.openapi()["paths"]
    for (method, path), needed in NEEDED.items():
        operation = paths[path][method.lower()]
        assert operation["summary"], (method, path)
        assert operation["description"], (method, path)
        if needed is not None:
            assert operation["security"] == [{"HTTPBearer": []}], (method, path)
            assert {"401", "403", "503"} <= set(operation["responses"]), (method, path)


@ROUTES
async def test_a_route_lets_those_roles_through_that_reach_it(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    needed = NEEDED[method, path]
    for role in Role:
        answer = await ask(client, method, path, TOKENS[role])
        if role.is_fenced and path in SHARED:
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "api_scope_denied")
        elif needed is None or role.allows(needed):
            assert answer.status_code not in (401, 403), (role, answer.text)
        else:
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "api_scope_denied")
            message = answer.json()["error"]["message"]
            assert message == f"Token {role} has the role {role}; {needed} is needed."


@ROUTES
@pytest.mark.parametrize(
    ("token", "code"), [(None, "api_key_missing"), ("nobody-gave-me-this-token", "api_key_invalid")]
)
async def test_without_a_token_of_ours_nothing_but_health_and_metrics_answers(
    client: httpx.AsyncClient, method: str, path: str, token: str | None, code: str
) -> None:
    answer = await ask(client, method, path, token)
    if NEEDED[method, path] is None:
        assert answer.status_code not in (401, 403)
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
        assert answer.json()["error"]["requestId"] == answer.headers["x-request-id"]
