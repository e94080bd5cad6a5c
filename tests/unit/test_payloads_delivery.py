"""Reading the body of a delivery: always an id and a kind, never an exception."""

import hashlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rivya.payloads import DeliveryBody, find_generation, read_delivery

GENERATION = {"id": "task_1", "status": "succeeded", "model": "z-image"}
EVENT: dict[str, Any] = {
    "id": "evt_1",
    "type": "generation.succeeded",
    "api_version": "2026-05-11",
    "created_at": "2026-05-11T00:00:00.000Z",
    "data": GENERATION,
}


def read(value: object, *, header_id: str | None = None) -> DeliveryBody:
    return read_delivery(orjson.dumps(value), header_id=header_id)


def digest(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


def test_a_documented_event_is_read_whole() -> None:
    assert read(EVENT) == DeliveryBody(
        event_id="evt_1",
        kind="generation",
        event_type="generation.succeeded",
        generation=find_generation(GENERATION),
    )


@pytest.mark.parametrize(
    "event_type", ["test", "ping", "webhook.test", "endpoint.test", "webhook_test", "Webhook.Ping", "test.generation"]
)
def test_a_test_event_carries_no_generation_that_could_be_applied(event_type: str) -> None:
    body = read({**EVENT, "type": event_type})
    assert (body.kind, body.event_type, body.generation) == ("test", event_type, None)


@pytest.mark.parametrize("event_type", ["generation.created", "contest.started", "pinged", "file.ready"])
def test_another_type_is_unknown_and_still_tells_its_generation(event_type: str) -> None:
    body = read({**EVENT, "type": event_type})
    assert (body.kind, body.event_type) == ("unknown_type", event_type)
    assert body.generation is not None


@pytest.mark.parametrize("event_type", ["generation.\x00", "t" * 201])
def test_a_type_that_cannot_be_stored_is_unknown_and_nameless(event_type: str) -> None:
    body = read({**EVENT, "type": event_type})
    assert (body.kind, body.event_type) == ("unknown_type", None)


@pytest.mark.parametrize("event_type", [None, "", 7, [], {}])
def test_without_a_type_the_shape_decides(event_type: object) -> None:
    assert read({**EVENT, "type": event_type}).kind == "generation"
    assert read({**EVENT, "type": event_type, "data": None}).kind == "unreadable"


def test_a_documented_type_without_a_generation_is_unreadable() -> None:
    body = read({**EVENT, "data": {"id": "task_1"}})
    assert (body.kind, body.event_id, body.generation) == ("unreadable", "evt_1", None)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"null", b"7", b"[]", b"\xff\x00", b"[" * 5000, b'{"a":1e999}', b'"\\ud800"']
)
def test_what_is_not_a_json_object_is_unreadable_and_named_by_its_bytes(raw: bytes) -> None:
    assert read_delivery(raw, header_id=None) == DeliveryBody(event_id=digest(raw), kind="unreadable")


def test_the_id_in_the_body_comes_before_the_one_in_the_headers() -> None:
    assert read(EVENT, header_id="msg_1").event_id == "evt_1"
    assert read({**EVENT, "id": None}, header_id="msg_1").event_id == "msg_1"


@pytest.mark.parametrize("unusable", [None, 7, "", " ", "e" * 501, "evt_\x00", "evt_\n", ["evt_1"]])
def test_an_id_that_cannot_be_stored_is_made_from_the_bytes(unusable: object) -> None:
    value = {**EVENT, "id": unusable}
    header_id = unusable if isinstance(unusable, str) else None
    assert read(value, header_id=header_id).event_id == digest(orjson.dumps(value))


def test_two_bare_generations_of_one_task_are_two_events() -> None:
    """Without an envelope the only id is the task's: taken for the event's, the second would look like a duplicate."""
    first, second = read({**GENERATION, "status": "processing"}), read(GENERATION)
    assert first.kind == second.kind == "generation"
    assert first.event_id != second.event_id
    assert read(GENERATION, header_id="msg_1").event_id == "msg_1"


def test_the_last_of_duplicate_members_counts() -> None:
    assert read_delivery(b'{"id":"evt_1","type":"test","id":"evt_2"}', header_id=None).event_id == "evt_2"


members = st.sampled_from(["id", "type", "data", "generation", "status", "created_at"])
members_of = (
    st.none() | st.integers(-9, 9) | st.text(max_size=9) | st.just(GENERATION) | st.sampled_from(["ping", "queued"])
)


@given(st.binary(max_size=80) | st.dictionaries(members, members_of).map(orjson.dumps), st.none() | st.text())
def test_any_body_has_an_id_that_can_be_stored(body: bytes, header_id: str | None) -> None:
    read_body = read_delivery(body, header_id=header_id)
    assert 0 < len(read_body.event_id) <= 500
    assert read_body.event_id.isprintable()
    assert read_body.kind != "generation" or read_body.generation is not None
