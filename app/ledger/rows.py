"""Between rows and what they mean: the only place that knows which columns hold JSON."""

from dataclasses import fields
from typing import Any

import orjson
from sqlalchemy import RowMapping

from app.ledger.plan import DeliveryRow
from app.ledger.reads import StoredDelivery
from app.ledger.report import Source
from app.ledger.state import Generation, Transition
from app.ledger.status import Outcome, Status, Tracking

_PLAIN = tuple(
    name
    for name in (field.name for field in fields(Generation))
    if name not in ("status", "tracking", "settled_by", "rivya_object", "metadata")
)


def to_generation(row: RowMapping) -> Generation:
    """A row of `generations`."""
    settled_by = row["settled_by"]
    metadata = row["metadata"]
    return Generation(
        status=Status(row["status"]),
        tracking=Tracking(row["tracking"]),
        settled_by=Source(settled_by) if settled_by is not None else None,
        rivya_object=orjson.loads(row["rivya_object"]),
        metadata=orjson.loads(metadata) if metadata is not None else None,
        **{name: row[name] for name in _PLAIN},
    )


def from_generation(generation: Generation) -> dict[str, Any]:
    """As written to `generations`."""
    metadata = generation.metadata
    return {
        "status": generation.status,
        "tracking": generation.tracking,
        "settled_by": generation.settled_by,
        "rivya_object": orjson.dumps(generation.rivya_object).decode(),
        "metadata": orjson.dumps(metadata).decode() if metadata is not None else None,
        **{name: getattr(generation, name) for name in _PLAIN},
    }


def from_transition(transition: Transition) -> dict[str, Any]:
    """As written to `transitions`."""
    return {field.name: getattr(transition, field.name) for field in fields(Transition)}


def to_transition(row: RowMapping) -> Transition:
    """A row of `transitions`."""
    from_status = row["from_status"]
    return Transition(
        generation_id=row["generation_id"],
        number=row["number"],
        from_status=Status(from_status) if from_status is not None else None,
        to_status=Status(row["to_status"]),
        source=Source(row["source"]),
        event_id=row["event_id"],
        occurred_at=row["occurred_at"],
        recorded_at=row["recorded_at"],
    )


def to_delivery(row: RowMapping) -> StoredDelivery:
    """A row of `deliveries`, its body and headers if they were selected."""
    headers = row.get("headers")
    return StoredDelivery(
        event_id=row["event_id"],
        event_type=row["event_type"],
        generation_id=row["generation_id"],
        endpoint_id=row["endpoint_id"],
        received_at=row["received_at"],
        outcome=Outcome(row["outcome"]),
        attempts=row["attempts"],
        body_pruned_at=row["body_pruned_at"],
        body=row.get("body"),
        headers=orjson.loads(headers) if headers is not None else None,
    )


def from_delivery(row: DeliveryRow) -> dict[str, Any]:
    """As written to `deliveries`."""
    delivery = row.delivery
    return {
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "generation_id": row.generation_id,
        "endpoint_id": delivery.endpoint_id,
        "received_at": delivery.received_at,
        "body": delivery.body,
        "headers": orjson.dumps(delivery.headers).decode(),
        "outcome": row.outcome,
        "attempts": row.attempts,
    }
