"""Reports as the parts of the service would make them, for tests of the ledger."""

from datetime import datetime, timedelta
from typing import Any

from app.core.models import Claim
from app.ledger.models import Delivery, NextPoll, Report, Source, Tracking
from tests.support.clock import NOON


def status_claim(generation_id: str, status: str, **members: Any) -> Claim:
    return Claim(id=generation_id, status=status, object={"id": generation_id, "status": status, **members})


def webhook(generation_id: str, status: str, *, event_id: str | None = None, at: datetime = NOON) -> Report:
    delivery = Delivery(
        event_id=event_id or f"evt_{generation_id}_{status}",
        event_type=f"generation.{status}",
        endpoint_id=None,
        received_at=at,
        body=b"{}",
        headers={},
    )
    return Report(source=Source.WEBHOOK, reported_at=at, claim=status_claim(generation_id, status), delivery=delivery)


def poll(generation_id: str, status: str, *, at: datetime = NOON) -> Report:
    next_poll = NextPoll(at + timedelta(seconds=15), Tracking.WATCHING)
    return Report(source=Source.POLL, reported_at=at, claim=status_claim(generation_id, status), next_poll=next_poll)


def submit(generation_id: str, status: str = "queued", *, at: datetime = NOON) -> Report:
    return Report(
        source=Source.SUBMIT, reported_at=at, claim=status_claim(generation_id, status), client_request_id="order-1"
    )
