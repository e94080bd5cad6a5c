"""What is said in a stream is found by its shape, in every dialect, and said once."""

from typing import Any

import orjson
import pytest
from httpx_sse import ServerSentEvent

from app.cli.client.chat import ChatOutput, understood, whole_answer
from app.sandbox.settings import Dialect, encode_event
from tests.support.event_stream import read

COMPLETION: dict[str, Any] = {
    "id": "chatcmpl_1",
    "session_id": "chat_1",
    "model": "m",
    "created_at": "…",
    "message": {"id": "msg_1", "role": "assistant", "content": "One two three."},
    "usage": {"output_tokens": 3},
    "credits": {"reserved": 3, "final": 2},
}


@pytest.mark.parametrize("dialect", ["named", "chunks", "crlf"])
def test_the_pieces_of_every_dialect_are_the_whole_answer(dialect: Dialect) -> None:
    parts = [understood(event) for event in read(encode_event(COMPLETION, dialect))]
    assert "".join(part.piece for part in parts) == "One two three."
    assert {part.session_id for part in parts if part.session_id} == {"chat_1"}
    assert {part.error for part in parts} == {None}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"choices": [{"delta": {"content": "a"}}, {"text": "b"}, 7]}, ChatOutput(piece="ab")),
        ({"delta": "a"}, ChatOutput(piece="a")),
        ({"delta": {"type": "text_delta", "text": "a"}}, ChatOutput(piece="a")),
        ({"text": "a"}, ChatOutput(piece="a")),
        ({"content": ["a"]}, ChatOutput()),
        ({"message": {"content": "all"}, "session_id": 7}, ChatOutput(whole="all")),
        ({"session_id": "s"}, ChatOutput(session_id="s")),
        ({"error": {"code": "generation_failed", "message": "No."}}, ChatOutput(error="generation_failed")),
        ({"error": {"message": "No."}}, ChatOutput(error="No.")),
        ({"error": True}, ChatOutput(error="unnamed")),
        ([1], ChatOutput()),
    ],
)
def test_whatever_is_not_known_says_nothing(data: object, expected: ChatOutput) -> None:
    assert understood(ServerSentEvent(data=orjson.dumps(data).decode())) == expected


def test_an_event_called_error_is_one_whatever_it_holds() -> None:
    assert understood(ServerSentEvent("error", "gone")).error == "gone"
    assert understood(ServerSentEvent("error")).error == "unnamed"
    assert understood(ServerSentEvent("error", '{"code": "overloaded"}')).error == "overloaded"
    assert understood(ServerSentEvent(data="[DONE]")) == ChatOutput()


def test_the_answer_of_a_completion_is_its_messages_content() -> None:
    assert whole_answer(COMPLETION) == "One two three."
    assert whole_answer({"message": None}) == ""
