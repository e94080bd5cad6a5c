"""Finding Rivya's generation wherever it is, and reading no more from it than is there."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.models import Claim
from app.rivya.payloads import PayloadUnreadable, find_generation, read_generation, storable

SUCCEEDED: dict[str, Any] = {
    "id": "task_1",
    "status": "succeeded",
    "model": "z-image",
    "reserved_credits": 1,
    "final_credits": 0.5,
    "created_at": "2026-05-10T00:00:00.000Z",
    "updated_at": "2026-05-10T00:01:00.000Z",
    "client_request_id": "mine\t1",
    "result": {"primary_url": "https://media.example/result.png", "urls": ["https://media.example/result.png"]},
    "error": None,
    "something_new": [1],
}
SHORT = {"id": "task_1", "status": "queued"}
EVENT = {"id": "evt_1", "type": "generation.succeeded", "api_version": "2026-05-11", "status": "succeeded"}


def found_id(value: object) -> str | None:
    generation = find_generation(value)
    return None if generation is None else generation.id


def test_the_documented_object_is_read_whole_and_kept_as_it_came() -> None:
    assert read_generation(orjson.dumps(SUCCEEDED)) == Claim(
        id="task_1",
        status="succeeded",
        model="z-image",
        reserved_credits=1,
        final_credits=0.5,
        created_at=datetime(2026, 5, 10, tzinfo=UTC),
        updated_at=datetime(2026, 5, 10, 0, 1, tzinfo=UTC),
        client_request_id="mine\t1",
        object=SUCCEEDED,
    )


def test_a_short_create_answer_has_an_id_and_a_status() -> None:
    assert read_generation(orjson.dumps(SHORT)) == Claim("task_1", "queued", object=SHORT)


@pytest.mark.parametrize(
    "envelope",
    [
        {"data": SHORT},
        {"data": {"object": SHORT}},
        {"data": {"generation": SHORT}},
        {"generation": SHORT},
        {"payload": {"task": SHORT}},
        {"data": [SHORT]},
        {"event": {"resource": [{"x": 1}, SHORT]}},
    ],
)
def test_a_generation_is_found_wherever_the_envelope_holds_it(envelope: dict[str, Any]) -> None:
    assert found_id({**EVENT, **envelope}) == "task_1"
    assert read_generation(orjson.dumps(envelope)).id == "task_1"


def test_a_likely_place_comes_before_a_shallower_look_alike() -> None:
    attempt = {"id": "att_1", "status": "failed"}
    assert found_id({**EVENT, "attempt": attempt, "data": {"object": SHORT}}) == "task_1"
    assert found_id({**EVENT, "id": "E1", "attempt": attempt, "payload": {"task": SUCCEEDED}}) == "task_1"


def test_the_shallower_of_two_generations_is_the_one_meant() -> None:
    parent = {**SUCCEEDED, "id": "task_parent"}
    assert found_id({"payload": {**SUCCEEDED, "parent": parent}}) == "task_1"


def test_a_response_that_is_a_generation_is_not_searched_for_another() -> None:
    body = orjson.dumps({**SHORT, "data": {**SUCCEEDED, "id": "task_other"}})
    assert read_generation(body).id == "task_1"


def test_an_object_that_looks_like_an_event_is_a_generation_only_if_nothing_else_is() -> None:
    flat = {**EVENT, "id": "task_flat"}
    assert found_id({**flat, "item": SHORT}) == "task_1"
    assert (
        found_id({**flat, "data": {**SHORT, "id": "task_2", "type": "generation.created"}, "item": SHORT}) == "task_1"
    )
    assert found_id(flat) == "task_flat"


@pytest.mark.parametrize(
    "value",
    [
        None,
        "task_1",
        [],
        {},
        EVENT,
        {"id": "whend_1", "status": "failed"},
        {"id": "task_1", "status": "active"},
        {"id": "task_1", "status": ["queued"]},
        {"id": "", "status": "queued"},
        {"id": " ", "status": "queued"},
        {"id": 7, "status": "queued"},
        {"id": "task\x00", "status": "queued"},
        {"id": "task\ud800", "status": "queued"},
        {"id": "t" * 501, "status": "queued"},
        {"id": "\N{PARROT}" * 301, "status": "queued"},
        {"data": "x", "generation": [[]]},
    ],
)
def test_what_has_no_usable_id_and_status_is_no_generation(value: object) -> None:
    assert find_generation(value) is None


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b'{"id":"task_1"}', b"[" * 5000, b"\xff"])
def test_a_response_without_a_generation_is_unreadable(body: bytes) -> None:
    with pytest.raises(PayloadUnreadable):
        read_generation(body)


@pytest.mark.parametrize(
    ("member", "values"),
    [
        ("model", [7, "", "m" * 201, "z\x00", "z\ud800"]),
        ("client_request_id", [7, "", "c" * 501, "c\x00", "c\udfff"]),
        ("reserved_credits", ["1", True, 1e300, -(10**13), float("nan"), None]),
        ("final_credits", ["1", False, 10**30, {}]),
        ("created_at", [7, "", "yesterday", "0001-01-01", "9999-12-31T23:59:59-14:00", "2" * 65, None]),
        ("updated_at", [[], "2026-02-30", "1969-12-31T23:59:59Z"]),
    ],
)
def test_an_optional_member_that_is_not_well_formed_is_absent(member: str, values: list[object]) -> None:
    for value in values:
        generation = find_generation({**SUCCEEDED, member: value})
        assert generation is not None
        assert getattr(generation, member) is None


def test_a_time_without_an_offset_is_utc_and_one_with_an_offset_becomes_utc() -> None:
    generation = find_generation(
        {**SHORT, "created_at": "2026-05-10T00:00:00", "updated_at": "2026-05-10T02:00:00+02:00"}
    )
    assert generation is not None
    assert generation.created_at == generation.updated_at == datetime(2026, 5, 10, tzinfo=UTC)


def test_what_databases_cannot_store_is_replaced_and_the_rest_kept() -> None:
    value = {**SHORT, "prompt\x00": ["a\x00b", "\ud800", 1, None]}
    generation = find_generation(value)
    assert generation is not None
    assert generation.object == {**SHORT, "prompt\ufffd": ["a\ufffdb", "\ufffd", 1, None]}


def test_an_object_nested_without_end_is_cut_and_serialises_again() -> None:
    deep = orjson.loads(b'{"a":' * 500 + b"[]" + b"}" * 500)
    generation = find_generation({**SHORT, "params": deep})
    assert generation is not None
    assert orjson.loads(orjson.dumps({"data": [generation.object]}))["data"][0]["id"] == "task_1"


def test_an_ordinary_object_is_not_copied() -> None:
    assert storable(SUCCEEDED) is SUCCEEDED


def test_a_search_is_bounded_in_depth_and_breadth() -> None:
    deep: object = SHORT
    for _ in range(20):
        deep = {"x": deep}
    assert find_generation(deep) is None
    assert find_generation({"noise": [{} for _ in range(5000)] + [SHORT]}) is None


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
names = st.sampled_from(["id", "status", "type", "data", "object", "generation", "model"]) | st.text(max_size=5)
json_values = st.recursive(
    scalars | st.sampled_from(["queued", "task_1", "evt_1", "generation.failed", "\x00"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5),
    max_leaves=15,
)


@given(json_values)
def test_whatever_is_found_can_be_stored(value: object) -> None:
    generation = find_generation(value)
    if generation is not None:
        text = orjson.dumps(generation.object)
        assert rb"\u0000" not in text.replace(rb"\\", b"")
        assert generation.id.isprintable()
