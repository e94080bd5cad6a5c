"""Chat of the sandbox: sessions, attachments, one charge per key, streams in several dialects and with faults."""

from typing import Any

import httpx
import pytest

from app.sandbox.accounts import SCOPES, Key
from app.sandbox.chat import HEARTBEAT
from app.sandbox.faults import StreamFault
from app.sandbox.settings import Dialect, SandboxSettings
from tests.support.sandbox_harness import World, world

TURN = {"model": "gpt-5-2-chat", "message": "hello fox"}
DIALECTS: tuple[Dialect, ...] = ("named", "chunks", "crlf")


def unpaced() -> SandboxSettings:
    return SandboxSettings(stream_pause=0)


async def send_turn(w: World, path: str = "", *, key: str | None = None, **members: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await w.client.post(f"/api/v1/chat/completions{path}", json={**TURN, **members}, headers=headers)


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_turn_is_answered_with_the_documented_object() -> None:
    async with world() as w:
        answer = (await send_turn(w)).json()
        assert list(answer) == [
            "id",
            "object",
            "session_id",
            "model",
            "created_at",
            "message",
            "usage",
            "credits",
        ]
        assert answer["id"].startswith("chatcmpl_")
        assert set(answer["message"]) == {"id", "role", "content"}
        assert answer["credits"] == {"reserved": 3, "final": 2}


async def test_a_turn_costs_what_it_turned_out_to_cost() -> None:
    async with world() as w:
        before = w.sandbox.accounts.balance("default")
        await send_turn(w)
        assert w.sandbox.accounts.balance("default") == before - 2


async def test_a_session_remembers_its_turns() -> None:
    async with world() as w:
        session_id = (await send_turn(w)).json()["session_id"]
        second = (await send_turn(w, session_id=session_id)).json()
        other = (await send_turn(w)).json()["session_id"]
        assert second["message"]["content"].startswith("Turn 2")
        listed = (await w.client.get("/api/v1/chat/sessions")).json()["data"]
        assert [session["id"] for session in listed] == [other, session_id]
        answer = (await w.client.get(f"/api/v1/chat/sessions/{session_id}")).json()
        assert [message["role"] for message in answer["messages"]] == ["user", "assistant"] * 2


async def test_the_same_key_is_paid_once_and_another_body_conflicts() -> None:
    async with world() as w:
        first, again = await send_turn(w, key="k"), await send_turn(w, key="k")
        assert first.json() == again.json()
        assert w.sandbox.state()["charges"]["k"]["times"] == 1
        assert code_of(await send_turn(w, key="k", message="other")) == (409, "idempotency_conflict")


@pytest.mark.parametrize(
    ("members", "refused"),
    [
        ({"model": None}, (400, "validation_failed")),
        ({"model": "z-image"}, (400, "chat_model_not_supported")),
        ({"message": ""}, (400, "validation_failed")),
        ({"session_id": 1}, (400, "validation_failed")),
        ({"session_id": "chat_unknown"}, (404, "not_found")),
        ({"enable_web_search": "yes"}, (400, "validation_failed")),
        ({"reasoning_effort": "huge"}, (400, "validation_failed")),
        ({"client_request_id": "x" * 129}, (400, "validation_failed")),
        ({"attachments": ["file_1"]}, (400, "validation_failed")),
        ({"attachments": [{"file_id": "file_unknown"}]}, (404, "not_found")),
        ({"model": "sandbox-chat", "attachments": [{"file_id": "f"}]}, (400, "chat_attachment_not_supported")),
    ],
)
async def test_a_turn_that_cannot_be_taken_costs_nothing(members: dict[str, Any], refused: tuple[int, str]) -> None:
    async with world() as w:
        assert code_of(await send_turn(w, **members)) == refused
        assert w.sandbox.state()["charges"] == {}


async def test_a_session_belongs_to_its_model() -> None:
    async with world() as w:
        session_id = (await send_turn(w)).json()["session_id"]
        assert code_of(await send_turn(w, session_id=session_id, model="sandbox-chat")) == (
            409,
            "chat_session_conflict",
        )


async def test_an_uploaded_file_can_be_attached() -> None:
    async with world() as w:
        files = {"file": ("fox.png", b"\x89PNG\r\n\x1a\n")}
        file_id = (await w.client.post("/api/v1/files", data={"kind": "image"}, files=files)).json()["file_id"]
        assert "1 attached" in (await send_turn(w, attachments=[{"file_id": file_id}])).json()["message"]["content"]


async def test_without_credits_there_is_no_turn() -> None:
    async with world() as w:
        w.sandbox.accounts.set_balance("default", 2)
        assert code_of(await send_turn(w)) == (402, "insufficient_credits")


@pytest.mark.parametrize("scope", ["chat:create", "chat:read"])
async def test_a_key_without_the_scope_is_denied(scope: str) -> None:
    async with world(unpaced()) as w:
        w.sandbox.keys.add(Key("rvya_sk_rest", scopes=tuple(other for other in SCOPES if other != scope)))
        w.client.headers["Authorization"] = "Bearer rvya_sk_rest"
        answers = [await send_turn(w), await send_turn(w, "/stream"), await w.client.get("/api/v1/chat/sessions")]
        denied = [answer.status_code == 403 for answer in answers]
        assert denied == ([True, True, False] if scope == "chat:create" else [False, False, True])


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_carries_the_whole_turn_in_its_dialect(dialect: Dialect) -> None:
    async with world(unpaced()) as w:
        w.sandbox.settings.stream_dialect = dialect
        answer = await send_turn(w, "/stream", key="k")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert all(word in answer.text for word in ("Turn", "hello", "fox"))
        end = {"named": "event: message.completed", "chunks": "data: [DONE]\n\n", "crlf": "event: done\r\n"}
        assert end[dialect] in answer.text
        assert ("\r\n" in answer.text) == (dialect == "crlf")
        assert (await send_turn(w, "/stream", key="k")).content == answer.content
        assert [streamed["fate"] for streamed in w.sandbox.state()["streams"]] == ["completed"] * 2
        assert w.sandbox.state()["charges"]["k"]["times"] == 1


@pytest.mark.parametrize("connection", ["reset", "hang_up"])
async def test_a_stream_can_break_off(connection: str) -> None:
    async with world(unpaced()) as w:
        fault = {"stream": {"after": 2, "connection": connection, "times": 1}}
        assert (await w.client.put("/sandbox/faults", json=fault)).status_code == 200
        with pytest.raises(httpx.TransportError):
            await send_turn(w, "/stream")
        assert [(streamed.fate, streamed.events) for streamed in w.sandbox.streams.log] == [("broken", 2)]
        assert (await send_turn(w, "/stream")).status_code == 200


async def test_a_stream_can_pause_after_heartbeats_until_time_has_passed() -> None:
    async with world(unpaced()) as w:
        w.sandbox.faults.stream = StreamFault(after=2, pause=60, heartbeats=3)
        async with w.client.stream("POST", "/api/v1/chat/completions/stream", json=TURN) as answer:
            chunks = answer.aiter_raw()
            received = b""
            while not received.endswith(HEARTBEAT * 3):
                received += await anext(chunks)
            await w.sandbox.advance(60)
            rest = b"".join([chunk async for chunk in chunks])
        assert b"message.completed" in rest


async def test_a_caller_that_leaves_a_stream_is_noticed() -> None:
    async with world() as w:
        async with w.client.stream("POST", "/api/v1/chat/completions/stream", json=TURN) as answer:
            pieces = answer.aiter_raw()
            await anext(pieces)
        while w.sandbox.streams.log[0].fate == "open":
            await w.client.get("/api/v1/models")
        assert w.sandbox.streams.log[0].fate == "abandoned"
