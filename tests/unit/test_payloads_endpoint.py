"""Reading webhook endpoints: the secret is caught, and what can't be read is unknown rather than absent."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from app.rivya.endpoint_payload import WebhookEndpoint, find_secret, read_endpoint, read_endpoint_list, read_rotation
from app.rivya.payloads import PayloadUnreadable

SECRET = "whsec_0123456789abcdef"
CREATED: dict[str, Any] = {
    "id": "whend_1",
    "object": "webhook_endpoint",
    "name": "Production webhook",
    "url": "https://example.com/rivya/webhook",
    "event_types": ["generation.succeeded", "generation.failed"],
    "status": "active",
    "secret_preview": "whsec_01...abcdef",
    "signing_secret": SECRET,
    "last_success_at": None,
    "last_failure_at": "2026-05-11T00:00:00.000Z",
    "failure_count": 2,
    "created_at": "2026-05-11T00:00:00.000Z",
    "updated_at": "2026-05-11T00:00:00.000Z",
    "disabled_at": None,
    "revoked_at": None,
}
STORED = {name: value for name, value in CREATED.items() if name != "signing_secret"}
CREATED_AT = datetime(2026, 5, 11, tzinfo=UTC)


def test_the_documented_endpoint_is_read_whole() -> None:
    assert read_endpoint(CREATED) == WebhookEndpoint(
        id="whend_1",
        url="https://example.com/rivya/webhook",
        name="Production webhook",
        status="active",
        event_types=("generation.succeeded", "generation.failed"),
        secret=SECRET,
        failure_count=2,
        last_failure_at=CREATED_AT,
        created_at=CREATED_AT,
    )


def test_the_secret_never_shows() -> None:
    assert SECRET not in repr(read_endpoint(CREATED))


def test_a_preview_is_no_secret() -> None:
    assert read_endpoint(STORED).secret is None


def test_optional_members_of_a_wrong_type_are_absent() -> None:
    endpoint = read_endpoint({**STORED, "event_types": "all", "failure_count": True, "status": 1, "name": None})
    assert (endpoint.event_types, endpoint.failure_count, endpoint.status, endpoint.name) == ((), 0, None, None)


@pytest.mark.parametrize("envelope", ["data", "endpoint", "webhook"])
def test_an_endpoint_may_be_in_an_envelope(envelope: str) -> None:
    assert read_endpoint({envelope: CREATED}) == read_endpoint(CREATED)


@pytest.mark.parametrize(
    "value",
    [None, [], {}, {"id": "whend_1"}, {"id": "", "url": "https://x"}, {"id": "whend_1", "url": ""}, {"data": 1}],
)
def test_what_has_no_id_and_url_is_no_endpoint(value: object) -> None:
    with pytest.raises(PayloadUnreadable):
        read_endpoint(value)


@pytest.mark.parametrize("value", [[STORED], {"object": "list", "data": [STORED]}, {"data": [STORED]}])
def test_a_list_may_be_an_array_or_an_object(value: object) -> None:
    listed = read_endpoint_list(orjson.dumps(value))
    assert [endpoint.id for endpoint in listed.endpoints] == ["whend_1"]
    assert listed.complete


@pytest.mark.parametrize("mark", [{"has_more": True}, {"next_cursor": "abc"}, {"next": "/2"}, {"total": 2}])
def test_a_list_that_speaks_of_more_is_not_complete(mark: dict[str, Any]) -> None:
    assert not read_endpoint_list(orjson.dumps({"object": "list", "data": [STORED], **mark})).complete


def test_marks_that_speak_of_no_more_leave_a_list_complete() -> None:
    marks = {"has_more": False, "next_cursor": None, "total": 1}
    assert read_endpoint_list(orjson.dumps({"object": "list", "data": [STORED], **marks})).complete


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{}",
        b"<html>",
        b'{"object":"error","data":[]}',
        b'{"object":"list","data":null}',
        b'[{"id":"whend_1"}]',
        b"[7]",
    ],
)
def test_a_list_that_cannot_be_read_whole_is_unknown_never_empty(body: bytes) -> None:
    with pytest.raises(PayloadUnreadable):
        read_endpoint_list(body)


@pytest.mark.parametrize(
    "value",
    [
        CREATED,
        {"signing_secret": SECRET},
        {"data": {"signing_secret": SECRET, "previous_signing_secret": "whsec_old"}},
        {"previous_secret": "whsec_old", "secret": SECRET},
        {**STORED, "new_secret": SECRET},
        {"endpoint": STORED, "secret": SECRET},
    ],
)
def test_a_rotations_secret_is_caught_wherever_it_is_shown(value: dict[str, Any]) -> None:
    rotated = read_rotation(orjson.dumps(value), "whend_1")
    assert (rotated.id, rotated.secret) == ("whend_1", SECRET)


@pytest.mark.parametrize("value", [STORED, {}, {"secret": "hidden"}, {"old_secret": SECRET}, {"signing_secret": ""}])
def test_a_rotation_that_shows_no_secret_is_unreadable(value: dict[str, Any]) -> None:
    with pytest.raises(PayloadUnreadable):
        read_rotation(orjson.dumps(value), "whend_1")


def test_a_search_for_a_secret_is_bounded() -> None:
    value: object = {"signing_secret": SECRET}
    for _ in range(2000):
        value = {"data": value}
    assert find_secret(value) is None


def test_a_secret_of_another_endpoint_is_not_taken_for_ours() -> None:
    with pytest.raises(PayloadUnreadable, match="another endpoint"):
        read_rotation(orjson.dumps({**STORED, "signing_secret": SECRET}), "whend_2")
