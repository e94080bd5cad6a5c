"""What is said in a stream is found by its shape, in every dialect, and said once."""

from typing import Any

import orjson
import pytest
from httpx_sse import ServerSentEvent

from app.cli.client.chat import ChatEvent, complete_answer, parse_event
from app.sandbox.chat import encode_event
from app.sandbox.settings import Dialect
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
def test_the_pieces_of_every_dialect_are_the_complete_answer(dialect: Dialect) -> None:
    parts = [parse_event(event) for event in read(encode_event(COMPLETION, dialect))]
    assert "".join(part.piece for part in parts) == "One two three."
    assert {part.session_id for part in parts if part.session_id} == {"chat_1"}
    assert {part.error for part in parts} == {None}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"choices": [{"delta": {"content": "a"}}, {"text": "b"}, 7]}, ChatEvent(piece="ab")),
        ({"delta": "a"}, ChatEvent(piece="a")),
        ({"delta": {"type": "text_delta", "text": "a"}}, ChatEvent(piece="a")),
        ({"text": "a"}, ChatEvent(piece="a")),
        ({"content": ["a"]}, ChatEvent()),
        ({"message": {"content": "all"}, "session_id": 7}, ChatEvent(complete="all")),
        ({"session_id": "s"}, ChatEvent(session_id="s")),
        ({"error": {"code": "generation_failed", "message": "No."}}, ChatEvent(error="generation_failed")),
        ({"error": {"message": "No."}}, ChatEvent(error="No.")),
        ({"error": True}, ChatEvent(error="unnamed")),
        ([1], ChatEvent()),
    ],
)
def test_whatever_is_not_known_says_nothing(data: object, expected: ChatEvent) -> None:
    assert parse_event(ServerSentEvent(data=orjson.dumps(data).decode())) == expected


def test_an_event_called_error_is_one_whatever_it_holds() -> None:
    assert parse_event(ServerSentEvent("error", "gone")).error == "gone"
    assert parse_event(ServerSentEvent("error")).error == "unnamed"
    assert parse_event(ServerSentEvent("error", '{"code": "overloaded"}')).error == "overloaded"
    assert parse_event(ServerSentEvent(data="[DONE]")) == ChatEvent()


def test_the_answer_of_a_completion_is_its_messages_content() -> None:
    assert complete_answer(COMPLETION) == "One two three."
    assert complete_answer({"message": None}) == ""
