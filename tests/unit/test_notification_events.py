"""The bodies of notifications: which bytes of Rivya's are passed on, and the envelope of all others."""

import json
from typing import Any

import pytest

from app.ledger.models import Generation, Source, Status, Tracking, Transition
from app.notifications.events import alarm_body, event_body, is_deliverable, own_event_id
from tests.support.clock import NOON

GENERATION = {"id": "a", "status": "succeeded"}


def transition(status: Status = Status.SUCCEEDED) -> Transition:
    return Transition(
        generation_id="a",
        number=2,
        from_status=Status.QUEUED,
        to_status=status,
        source=Source.POLL,
        event_id=None,
        occurred_at=None,
        recorded_at=NOON,
    )


def body(like: object = None, *, status: Status = Status.SUCCEEDED, **members: Any) -> dict[str, Any]:
    generation = Generation("a", Status.SUCCEEDED, NOON, Tracking.SETTLED, "z-image", members)
    text = None if like is None else json.dumps(like).encode()
    event: dict[str, Any] = json.loads(event_body(transition(status), generation, event_id="evt_1", like=text))
    return event


@pytest.mark.parametrize(
    ("like", "place"),
    [
        (None, ("data",)),
        ([], ("data",)),
        ({"data": GENERATION}, ("data",)),
        ({"data": {"object": GENERATION}}, ("data", "object")),
        ({"data": {"generation": GENERATION}}, ("data", "generation")),
        ({"generation": GENERATION}, ("generation",)),
        ({"type": "generation.succeeded", "payload": GENERATION}, ("payload",)),
        ({"type": "generation.succeeded", "payload": [GENERATION]}, ("data",)),
    ],
)
def test_the_generation_is_where_the_deliveries_have_it(like: object, place: tuple[str, ...]) -> None:
    event = body(like, final_credits=3)
    assert list(event)[:4] == ["id", "type", "api_version", "created_at"]
    assert (event["id"], event["type"]) == ("evt_1", "generation.succeeded")
    assert event["created_at"] == "2026-05-10T12:00:00.000Z"
    for name in place:
        event = event[name]
    assert (event["id"], event["status"], event["model"], event["final_credits"]) == ("a", "succeeded", "z-image", 3)
    assert event["error"] is None


def test_the_version_is_that_of_the_deliveries() -> None:
    assert body()["api_version"] == "2026-05-11"
    assert body({"api_version": "2026-06-01"})["api_version"] == "2026-06-01"
    assert body({"api_version": 7})["api_version"] == "2026-05-11"


def test_an_earlier_status_has_no_outcome() -> None:
    data = body(status=Status.PROCESSING, result={"urls": []}, final_credits=3)["data"]
    assert (data["status"], data["result"], data["final_credits"]) == ("processing", None, None)


@pytest.mark.parametrize(
    ("event_id", "text", "expected"),
    [
        ("evt_1", b'{"id": "evt_1"}', True),
        ("evt_1", b"{}", True),
        ("evt_1", b'{"id": "evt_2"}', False),
        ("evt_1", b"", False),
        ("evt_1:0123", b'{"id": "evt_1"}', False),
        ("sha256:0123", b"{}", False),
        ("evt_\N{SNOWMAN}", b"{}", False),
    ],
)
def test_bytes_are_passed_on_if_their_event_has_an_id_for_a_header(event_id: str, text: bytes, expected: bool) -> None:
    assert is_deliverable(event_id, text) is expected


def test_an_event_of_ours_has_always_the_same_id() -> None:
    assert own_event_id("a", 1) == own_event_id("a", 1)
    assert len({own_event_id("a", 1), own_event_id("a", 2), own_event_id("a1", ""), own_event_id("a", "1", "")}) == 4
    assert len(own_event_id("a")) == len("evt_0123456789abcdef01234567")


def test_an_alarm_says_what_crossed_what() -> None:
    event = json.loads(alarm_body("evt_1", NOON, alarm="silence", is_raised=True, value=1800.1239, threshold=1800))
    assert event["type"] == "receiver.alarm"
    assert event["data"] == {
        "object": "alarm",
        "alarm": "silence",
        "raised": True,
        "value": 1800.124,
        "threshold": 1800,
    }


def test_an_alarm_of_one_endpoint_names_it() -> None:
    alarm: dict[str, Any] = {"alarm": "webhook_failing", "is_raised": True, "value": 1.0, "threshold": 0.5}
    assert json.loads(alarm_body("evt_1", NOON, **alarm, endpoint_id="whend_1"))["data"]["endpoint_id"] == "whend_1"
    assert "endpoint_id" not in json.loads(alarm_body("evt_1", NOON, **alarm))["data"]
