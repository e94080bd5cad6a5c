"""What a verified delivery says becomes a report, and what it can't say is kept as evidence."""

from datetime import timedelta
from typing import Any

import orjson
import pytest

from app.intake.webhook import as_unreadable, is_delivery, parse_delivery, stored_headers
from app.ledger.models import Outcome, Report, Source
from tests.support.clock import NOON

OBJECT = {"id": "task_1", "status": "succeeded", "model": "z-image"}


def report(body: bytes, *headers: tuple[bytes, bytes]) -> Report:
    return parse_delivery(body, headers, header_id=None, endpoint_id="end_1", now=NOON)


def event(event_type: str, **data: Any) -> bytes:
    return orjson.dumps({"id": "evt_1", "type": event_type, "data": data})


@pytest.mark.parametrize(
    ("body", "encodings", "expected"),
    [(b"{}", [], True), (b"{}", [b" Identity "], True), (b"{}", [b"gzip"], False), (b"", [], False)],
)
def test_a_delivery_has_a_body_that_is_not_encoded(body: bytes, encodings: list[bytes], expected: bool) -> None:
    assert is_delivery([(b"content-encoding", value) for value in encodings], body) is expected


def test_a_documented_event_is_a_claim_with_its_bytes_as_evidence() -> None:
    body = event("generation.succeeded", **OBJECT)
    translated = report(body)
    assert translated.claim is not None
    assert translated.delivery is not None
    assert (translated.source, translated.claim.id, translated.claim.status) == (Source.WEBHOOK, "task_1", "succeeded")
    assert (translated.delivery.body, translated.delivery.event_id, translated.delivery.endpoint_id) == (
        body,
        "evt_1",
        "end_1",
    )
    assert translated.delivery.stored_outcome is None


@pytest.mark.parametrize(
    ("body", "stored_outcome"),
    [
        (event("generation.cancelled", **OBJECT), Outcome.UNKNOWN_TYPE),
        (event("generation.succeeded"), Outcome.UNREADABLE),
        (b"\xff", Outcome.UNREADABLE),
    ],
)
def test_what_claims_nothing_is_kept_for_what_it_is(body: bytes, stored_outcome: Outcome) -> None:
    translated = report(body)
    assert translated.claim is None
    assert translated.delivery is not None
    assert (translated.delivery.stored_outcome, translated.delivery.body) == (stored_outcome, body)


def test_a_claim_that_cannot_be_recorded_is_kept_as_evidence() -> None:
    unreadable = as_unreadable(report(event("generation.succeeded", **OBJECT)))
    assert unreadable.claim is None
    assert unreadable.delivery is not None
    assert unreadable.delivery.stored_outcome is Outcome.UNREADABLE


def test_a_report_without_a_delivery_has_no_evidence_to_keep() -> None:
    polled = Report(source=Source.POLL, reported_at=NOON, claim=None)
    assert as_unreadable(polled) is polled


def test_the_headers_that_a_signature_is_made_of_are_kept_and_no_others() -> None:
    sent = [
        (b"content-type", b"application/json"),
        (b"rivya-signature", b"t=1,v1=ab"),
        (b"webhook-id", b"evt_1"),
        (b"x-rivya-timestamp", b"1\xff"),
        (b"authorization", b"Bearer hush"),
        (b"cookie", b"hush"),
    ]
    assert stored_headers(sent) == {
        "content-type": "application/json",
        "rivya-signature": "t=1,v1=ab",
        "webhook-id": "evt_1",
        "x-rivya-timestamp": "1ÿ",
    }


@pytest.mark.parametrize(("days", "expected"), [(89, None), (91, Outcome.STALE)])
def test_an_old_claim_makes_no_generation_that_may_have_been_pruned(days: int, expected: Outcome | None) -> None:
    updated = (NOON - timedelta(days=days)).isoformat()
    body = event("generation.succeeded", **OBJECT, updated_at=updated)
    translated = parse_delivery(
        body, [], header_id=None, endpoint_id=None, now=NOON, forgotten_before=NOON - timedelta(days=90)
    )
    assert translated.claim is not None
    assert translated.delivery is not None
    assert translated.delivery.stored_outcome is expected
