"""The OpenAPI document says of the relayed calls what they answer, and what they take."""

from typing import Any

import pytest

from app.core.auth import Role
from app.sandbox.server import serve_sandbox
from tests.support.gateway_harness import open_gateway
from tests.support.openapi_cases import ERROR, check

TURN = {"model": "gpt-5-2-chat", "message": "hello"}


def form() -> dict[str, Any]:
    return {"data": {"kind": "image"}, "files": {"file": ("fox.png", b"\x89PNG\r\n\x1a\n")}}


@pytest.mark.parametrize(
    ("method", "path", "template", "content"),
    [
        ("GET", "models", "models", {}),
        ("GET", "models/z-image", "models/{model_id}", {}),
        ("GET", "models/unknown", "models/{model_id}", {}),
        ("GET", "credits", "credits", {}),
        ("POST", "files", "files", form()),
        ("POST", "files", "files", {"json": {}}),
        ("GET", "files/file_unknown", "files/{file_id}", {}),
        ("POST", "chat/completions", "chat/completions", {"json": TURN}),
        ("POST", "chat/completions", "chat/completions", {"json": {}}),
        ("GET", "chat/sessions", "chat/sessions", {}),
        ("GET", "chat/sessions/chat_unknown", "chat/sessions/{session_id}", {}),
    ],
)
async def test_an_answer_is_what_the_document_says(
    method: str, path: str, template: str, content: dict[str, Any]
) -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        document = room.app.openapi()
        for client in room.clients.values():
            answer = await client.request(method, f"/api/v1/{path}", **content)
            responses = document["paths"][f"/api/v1/{template}"][method.lower()]["responses"]
            schema = responses[str(answer.status_code)]["content"]["application/json"]["schema"]["$ref"]
            check(document, schema, answer.json())


async def test_every_relayed_call_documents_its_token_its_errors_and_itself() -> None:
    async with open_gateway("http://127.0.0.1:1") as room:
        for path, methods in room.app.openapi()["paths"].items():
            for operation in methods.values():
                assert operation["security"] == [{"HTTPBearer": []}], path
                assert {"200", "400", "401", "403", "404", "413", "503", "default"} <= set(operation["responses"]), path
                assert operation["summary"], path
                assert operation["description"], path
                for status, response in operation["responses"].items():
                    if status != "200":
                        assert response["content"]["application/json"]["schema"] == {"$ref": ERROR}, (path, status)


async def test_what_a_creation_takes_is_documented_with_an_example_that_rivya_takes() -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        document = room.app.openapi()
        for path in ("/api/v1/chat/completions", "/api/v1/chat/completions/stream"):
            schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
            assert (await room.clients[Role.WRITE].post(path, json=schema["example"])).status_code == 200
        upload = document["paths"]["/api/v1/files"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert set(upload["properties"]) == {"file", "kind", "model", "client_request_id"}
