"""JSON objects of the API for generations, transitions, events and deliveries."""

import base64
from datetime import UTC, datetime
from typing import Any

import orjson

from app.ledger.models import Generation, StoredDelivery, Transition

_NULL_MEMBERS: dict[str, Any] = dict.fromkeys(
    ("id", "status", "model", "reserved_credits", "final_credits", "created_at", "updated_at", "result", "error")
)


def render(generation: Generation) -> dict[str, Any]:
    """Rivya's object unchanged, plus `metadata` and `tracking`; documented members are null until Rivya sent one."""
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
    """A transition as a JSON object."""
    return {
        "number": transition.number,
        "from": transition.from_status,
        "to": transition.to_status,
        "source": transition.source,
        "event_id": transition.event_id,
        "occurred_at": format_time(transition.occurred_at),
        "recorded_at": format_time(transition.recorded_at),
    }


def render_event(cursor: str, transition: Transition, generation: Generation) -> dict[str, Any]:
    """A transition as an event of the feed: `id` is the cursor for what comes after it."""
    return {
        "id": cursor,
        "object": "event",
        "type": f"generation.{transition.to_status}",
        "created_at": format_time(transition.recorded_at),
        "generation": render(generation),
        "transition": render_transition(transition),
    }


def render_delivery(delivery: StoredDelivery) -> dict[str, Any]:
    """A delivery as a JSON object, without headers and body."""
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
    """The headers and the body of a delivery: the body as text (null if it is not UTF-8) and as base64."""
    body = delivery.body or b""
    return {"headers": delivery.headers, "body": _text(body), "body_base64": base64.b64encode(body).decode()}


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def format_time(value: datetime | None) -> str | None:
    """A time in RFC 3339, in UTC and with milliseconds, as Rivya formats it; None for None."""
    if value is None:
        return None
    if value.tzinfo is not UTC or not value.microsecond:
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    # A quarter of the time of `isoformat`: reading a generation writes three times.
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)[1:24].decode() + "Z"
