"""The service as it is put together: every route is documented, guarded and answered in one way."""

import httpx
import pytest

from app.rivya.schemes import SchemeInvalid
from tests.support.asgi_service import document, service

OPEN = {"/livez", "/readyz", "/metrics"}
GUARDED = {
    "/api/v1/generations": {"get", "post"},
    "/api/v1/generations/{generation_id}": {"get", "put", "delete"},
    "/api/v1/generations/{generation_id}/transitions": {"get"},
    "/api/v1/usage": {"get"},
    "/api/v1/models": {"get"},
    "/api/v1/models/{model_id}": {"get"},
    "/api/v1/credits": {"get"},
    "/api/v1/files": {"post"},
    "/api/v1/files/{file_id}": {"get"},
    "/api/v1/chat/completions": {"post"},
    "/api/v1/chat/completions/stream": {"post"},
    "/api/v1/chat/sessions": {"get"},
    "/api/v1/chat/sessions/{session_id}": {"get"},
    "/api/v1/audit": {"get"},
    "/api/v1/events": {"get"},
    "/api/v1/tokens": {"get", "post"},
    "/api/v1/tokens/me": {"get"},
    "/api/v1/tokens/{name}": {"delete", "patch"},
    "/api/v1/tokens/{name}/rotate": {"post"},
    "/api/v1/deliveries": {"get"},
    "/api/v1/deliveries/{event_id}": {"get"},
    "/api/v1/deliveries/replay": {"post"},
    "/api/v1/generations/{generation_id}/poll": {"post"},
    "/api/v1/endpoint": {"get"},
    "/api/v1/endpoint/orphans": {"get"},
    "/api/v1/endpoint/orphans/{rivya_id}": {"delete"},
    "/api/v1/endpoint/history": {"get"},
    "/api/v1/endpoint/rotate-secret": {"post"},
    "/api/v1/endpoint/repin": {"post"},
    "/api/v1/endpoint/test": {"post"},
    "/api/v1/rejections": {"get"},
    "/api/v1/callback-secret": {"get"},
    "/api/v1/webhooks": {"get", "post"},
    "/api/v1/webhooks/{endpoint_id}": {"get", "patch", "delete"},
    "/api/v1/webhooks/{endpoint_id}/rotate-secret": {"post"},
    "/api/v1/webhooks/{endpoint_id}/test": {"post"},
    "/api/v1/webhooks/{endpoint_id}/deliveries": {"get"},
    "/api/v1/webhooks/{endpoint_id}/resend": {"post"},
    "/api/v1/webhook-events": {"get"},
    "/api/v1/notifications": {"get"},
    "/api/v1/notifications/{notification_id}/resend": {"post"},
}

IDS = {
    "generation_id": "task_1",
    "event_id": "evt_1",
    "model_id": "z-image",
    "file_id": "file_1",
    "session_id": "chat_1",
    "name": "shop",
    "rivya_id": "whend_1",
    "endpoint_id": "whend_2",
    "notification_id": "notification_1",
}


async def test_every_route_is_in_the_document(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    paths = (await document(monkeypatch, sqlite_url))["paths"]
    assert {path: set(methods) for path, methods in paths.items()} == {**GUARDED, **{path: {"get"} for path in OPEN}}


async def test_every_guarded_route_documents_its_token_and_its_errors(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    paths = (await document(monkeypatch, sqlite_url))["paths"]
    for path, methods in GUARDED.items():
        for method in methods:
            operation = paths[path][method]
            assert operation["security"] == [{"HTTPBearer": []}], (method, path)
            assert {"401", "403", "503"} <= set(operation["responses"]), (method, path)
            assert operation["summary"], (method, path)
            assert operation["description"], (method, path)


@pytest.mark.parametrize("path", GUARDED)
async def test_nothing_under_api_answers_without_a_token(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str, path: str
) -> None:
    receiver = service(monkeypatch, sqlite_url)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(receiver.app), base_url="http://receiver") as client:
        for method in GUARDED[path]:
            answer = await client.request(method.upper(), path.format_map(IDS))
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "api_key_missing")
            assert answer.json()["error"]["requestId"] == answer.headers["x-request-id"]
    await receiver.close()


async def test_an_unsigned_delivery_and_its_answer_share_one_request_id(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    receiver = service(monkeypatch, sqlite_url)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(receiver.app), base_url="http://receiver") as client:
        answer = await client.post("/rivya/webhook", content=b"{}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "no_secret")
        assert answer.json()["error"]["requestId"] == answer.headers["x-request-id"]
    await receiver.close()


def test_a_scheme_that_is_none_is_refused_with_what_would_be_right(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    with pytest.raises(SchemeInvalid, match="unknown signature family: use auto"):
        service(monkeypatch, sqlite_url, RIVYA_SIGNATURE_SCHEME="md5")
