"""A generation as callers see it: Rivya's object unchanged, plus `metadata` and `tracking`."""

import base64
from datetime import datetime
from typing import Any

from app.ledger.models import Generation, StoredDelivery, Transition

_NULL_MEMBERS: dict[str, Any] = dict.fromkeys(
    ("id", "status", "model", "reserved_credits", "final_credits", "created_at", "updated_at", "result", "error")
)


def render(generation: Generation) -> dict[str, Any]:
    """Rivya's members as Rivya sent them, and no others; the documented ones, null, where it has told nothing yet."""
    return {
        **(generation.rivya_object or {**_NULL_MEMBERS, "model": generation.model}),
        "id": generation.id,
        "status": generation.status,
        "metadata": generation.metadata,
        "tracking": {
            "state": generation.tracking,
            "submitted_by": generation.submitted_by,
            "client_request_id": generation.client_request_id,
            "settled_by": generation.settled_by,
            "first_seen_at": format_time(generation.first_seen_at),
            "settled_at": format_time(generation.settled_at),
            "callback_received_at": format_time(generation.callback_received_at),
            "polls": generation.polls,
            "next_poll_at": format_time(generation.next_poll_at),
        },
    }


def render_transition(transition: Transition) -> dict[str, Any]:
    """A step of a generation's history."""
    return {
        "number": transition.number,
        "from": transition.from_status,
        "to": transition.to_status,
        "source": transition.source,
        "event_id": transition.event_id,
        "occurred_at": format_time(transition.occurred_at),
        "recorded_at": format_time(transition.recorded_at),
    }


def render_delivery(delivery: StoredDelivery) -> dict[str, Any]:
    """What is known of a delivery, without what it carried."""
    return {
        "object": "delivery",
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "generation_id": delivery.generation_id,
        "endpoint_id": delivery.endpoint_id,
        "received_at": format_time(delivery.received_at),
        "outcome": delivery.outcome,
        "attempts": delivery.attempts,
        "body_pruned_at": format_time(delivery.body_pruned_at),
    }


def render_evidence(delivery: StoredDelivery) -> dict[str, Any]:
    """What a delivery carried: its headers and its bytes, and these as text where they are text."""
    body = delivery.body or b""
    return {
        "headers": delivery.headers,
        "body": _text(body),
        "body_base64": base64.b64encode(body).decode(),
    }


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def format_time(value: datetime | None) -> str | None:
    """RFC 3339 in UTC with milliseconds, as Rivya writes its times."""
    if value is None:
        return None
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
