"""Who may call what of Rivya's: each relayed route asks for a token and for the role it needs, and is counted."""

import re
from typing import Any

import pytest

from app.core.auth import Role
from app.core.middleware import CALLERS
from app.sandbox.server import serve_sandbox
from tests.support.gateway_harness import GatewayHarness, open_gateway

READS = tuple(Role)
UNFENCED = (Role.READ, Role.WRITE, Role.ADMIN)
WRITES = (Role.WRITE, Role.WRITE_OWN, Role.ADMIN)
TABLE = {
    ("GET", "/api/v1/models"): READS,
    ("GET", "/api/v1/models/{model_id}"): READS,
    ("GET", "/api/v1/credits"): READS,
    ("POST", "/api/v1/files"): WRITES,
    ("GET", "/api/v1/files/{file_id}"): UNFENCED,
    ("POST", "/api/v1/chat/completions"): WRITES,
    ("POST", "/api/v1/chat/completions/stream"): WRITES,
    ("GET", "/api/v1/chat/sessions"): UNFENCED,
    ("GET", "/api/v1/chat/sessions/{session_id}"): UNFENCED,
}
WITHOUT_TOKEN: tuple[tuple[dict[str, str], str], ...] = (
    ({}, "api_key_missing"),
    ({"Authorization": "Basic eDp5"}, "api_key_missing"),
    ({"Authorization": "Bearer nobody-gave-me-this"}, "api_key_invalid"),
)
TURN = {"model": "gpt-5-2-chat", "message": "hello"}


async def known(room: GatewayHarness) -> dict[str, str]:
    """Ids of things that exist."""
    turn = (await room.client.post("/api/v1/chat/completions", json=TURN)).json()
    file = (await room.client.post("/api/v1/files", **form())).json()
    return {"model_id": "z-image", "file_id": file["file_id"], "session_id": turn["session_id"]}


def form() -> dict[str, Any]:
    return {"data": {"kind": "image"}, "files": {"file": ("fox.png", b"\x89PNG\r\n\x1a\n")}}


def content(method: str, path: str) -> dict[str, Any]:
    if method == "GET":
        return {}
    return form() if path == "/api/v1/files" else {"json": TURN}


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def counted(token: str, route: str, result: str) -> float:
    labels = {"token": token, "route": route, "result": result}
    return CALLERS.get_sample_value("receiver_api_calls_total", labels) or 0.0


async def test_the_table_names_every_relayed_route() -> None:
    async with open_gateway("http://127.0.0.1:1") as room:
        paths = room.app.openapi()["paths"]
        assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == set(TABLE)


@pytest.mark.parametrize(("method", "path"), TABLE, ids=" ".join)
async def test_a_route_serves_the_roles_that_reach_it_and_nobody_else(method: str, path: str) -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        url = path.format(**await known(room))
        for role in Role:
            before = len(rivya.sandbox.calls.recent)
            answer = await room.clients[role].request(method, url, **content(method, path))
            if role in TABLE[method, path]:
                assert answer.status_code == 200, answer.text
            else:
                assert code_of(answer) == (403, "api_scope_denied")
                assert len(rivya.sandbox.calls.recent) == before


@pytest.mark.parametrize(("method", "path"), TABLE, ids=" ".join)
async def test_without_a_token_of_ours_nothing_reaches_rivya(method: str, path: str) -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        url = re.sub(r"{\w+}", "unknown", path)
        for headers, code in WITHOUT_TOKEN:
            answer = await room.clients[None].request(method, url, headers=headers, **content(method, path))
            assert code_of(answer) == (401, code)
        assert rivya.sandbox.calls.recent == type(rivya.sandbox.calls.recent)()


async def test_a_call_is_counted_by_token_route_and_result() -> None:
    async with serve_sandbox() as rivya, open_gateway(rivya.base_url) as room:
        route = "/api/v1/files/{file_id}"
        before = {result: counted("reader", route, result) for result in ("succeeded", "refused")}
        ids = await known(room)
        await room.clients[Role.READ].get(f"/api/v1/files/{ids['file_id']}")
        await room.clients[Role.READ].get("/api/v1/files/file_unknown")
        await room.clients[Role.READ].get("/api/v1/files/file_unknown")
        after = {result: counted("reader", route, result) for result in ("succeeded", "refused")}
        assert {result: after[result] - before[result] for result in after} == {"succeeded": 1, "refused": 2}


async def test_a_role_that_does_not_reach_is_counted_as_refused() -> None:
    async with open_gateway("http://127.0.0.1:1") as room:
        before = counted("reader", "/api/v1/chat/completions", "refused")
        await room.clients[Role.READ].post("/api/v1/chat/completions", json=TURN)
        assert counted("reader", "/api/v1/chat/completions", "refused") == before + 1
