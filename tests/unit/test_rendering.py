"""What callers read: Rivya's object as Rivya wrote it, ours beside it, and a delivery with or without its bytes."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.ledger.models import Generation, Outcome, Source, Status, StoredDelivery, Tracking, Transition
from app.ledger.serializers import (
    format_time,
    render,
    render_delivery,
    render_event,
    render_evidence,
    render_transition,
)
from tests.support.clock import NOON

STAMP = "2026-05-10T12:00:00.000Z"


def _generation(**members: Any) -> Generation:
    return Generation(id="g", status=Status.QUEUED, first_seen_at=NOON, tracking=Tracking.WATCHING, **members)


def _delivery(**members: Any) -> StoredDelivery:
    known: dict[str, Any] = {
        "event_id": "evt_1",
        "event_type": "generation.succeeded",
        "generation_id": "g",
        "endpoint_id": None,
        "received_at": NOON,
        "outcome": Outcome.APPLIED,
        "attempts": 2,
    }
    return StoredDelivery(**{**known, **members})


def test_members_that_rivya_may_add_reach_callers_unchanged() -> None:
    rendered = render(_generation(rivya_object={"seed": 7, "result": {"urls": ["a"], "of_tomorrow": [1]}}))
    assert (rendered["seed"], rendered["result"]) == (7, {"urls": ["a"], "of_tomorrow": [1]})


def test_what_rivya_did_not_tell_is_not_made_up() -> None:
    rendered = render(_generation(rivya_object={"id": "g", "status": "queued"}))
    assert rendered.keys() == {"id", "status", "metadata", "tracking"}


def test_where_rivya_has_told_nothing_yet_the_documented_members_are_null() -> None:
    rendered = render(_generation())
    for member in ("model", "reserved_credits", "final_credits", "created_at", "updated_at", "result", "error"):
        assert rendered[member] is None


def test_the_status_is_the_records_whatever_an_older_word_said() -> None:
    assert render(_generation(rivya_object={"id": "other", "status": "failed"}))["status"] == "queued"


def test_a_step_of_the_history_says_who_told_it_and_when() -> None:
    step = Transition(
        generation_id="g",
        number=2,
        from_status=Status.QUEUED,
        to_status=Status.FAILED,
        source=Source.WEBHOOK,
        event_id="evt_1",
        occurred_at=None,
        recorded_at=NOON,
    )
    assert render_transition(step) == {
        "number": 2,
        "from": "queued",
        "to": "failed",
        "source": "webhook",
        "event_id": "evt_1",
        "occurred_at": None,
        "recorded_at": STAMP,
    }


def test_a_delivery_is_listed_without_what_it_carried() -> None:
    rendered = render_delivery(_delivery(body=b"{}", headers={"content-type": "application/json"}))
    assert rendered["attempts"] == 2
    assert not {"body", "headers"} & set(rendered)


def test_that_its_body_is_gone_is_told() -> None:
    assert render_delivery(_delivery())["body_pruned_at"] is None
    assert render_delivery(_delivery(body=b"", body_pruned_at=NOON))["body_pruned_at"] == STAMP


@pytest.mark.parametrize(("body", "text", "encoded"), [(b"{}", "{}", "e30="), (b"\xff", None, "/w=="), (None, "", "")])
def test_the_bytes_of_a_delivery_are_always_shown_and_as_text_where_they_are_text(
    body: bytes | None, text: str | None, encoded: str
) -> None:
    rendered = render_evidence(_delivery(body=body))
    assert (rendered["body"], rendered["body_base64"]) == (text, encoded)


def test_a_moment_is_written_as_rivya_writes_it() -> None:
    assert (format_time(NOON), format_time(None)) == (STAMP, None)


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=2)), ZoneInfo("UTC")])
@pytest.mark.parametrize("year", [1, 999, 1969, 2026, 9999])
def test_every_time_is_cut_to_milliseconds(zone: tzinfo, year: int) -> None:
    for microsecond in (0, 1, 999, 1000, 120_000, 123_456, 999_999):
        time = datetime(year, 2, 3, 4, 5, 6, microsecond, tzinfo=zone)
        assert format_time(time) == time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_an_event_names_its_cursor_its_type_and_what_happened() -> None:
    moved = Transition(
        generation_id="g", number=1, from_status=None, to_status=Status.QUEUED, source=Source.SUBMIT,
        event_id=None, occurred_at=None, recorded_at=NOON,
    )  # fmt: skip
    event = render_event("cursor", moved, _generation())
    assert [event[name] for name in ("id", "object", "type", "created_at")] == [
        "cursor",
        "event",
        "generation.queued",
        STAMP,
    ]
    assert (event["generation"], event["transition"]) == (render(_generation()), render_transition(moved))
