"""Converts between rows and the types of the ledger; only this module knows which columns hold JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any

import orjson
from sqlalchemy import RowMapping

from app.ledger.decide import DeliveryRow
from app.ledger.models import Generation, Outcome, Source, Status, StoredDelivery, Tracking, Transition

Row = RowMapping | Mapping[str, Any]
"""A row with access by column name, from SQLAlchemy or from a driver."""

_PLAIN = tuple(
    name
    for name in (field.name for field in fields(Generation))
    if name not in ("status", "tracking", "settled_by", "rivya_object", "metadata")
)
_WRITTEN_AS_THEY_ARE = (*_PLAIN, "status", "tracking", "settled_by")
_DELIVERED = ("event_id", "event_type", "endpoint_id", "received_at", "body")

GENERATION_COLUMNS = (*_WRITTEN_AS_THEY_ARE, "rivya_object", "metadata")
DELIVERY_COLUMNS = (*_DELIVERED, "headers", "generation_id", "outcome", "attempts")
TRANSITION_COLUMNS = tuple(field.name for field in fields(Transition))
BODY = DELIVERY_COLUMNS.index("body")

_generation = attrgetter(*_WRITTEN_AS_THEY_ARE)
_delivered = attrgetter(*_DELIVERED)
_transition = attrgetter(*TRANSITION_COLUMNS)


def dump_json(value: object) -> str:
    """A value as JSON text."""
    return orjson.dumps(value).decode()


def to_generation(row: Row) -> Generation:
    """The generation in a row of `generations`."""
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


def from_generation(generation: Generation) -> tuple[Any, ...]:
    """The values to write to `generations`, in the order of `GENERATION_COLUMNS`."""
    metadata = generation.metadata
    return (
        *_generation(generation),
        orjson.dumps(generation.rivya_object).decode(),
        orjson.dumps(metadata).decode() if metadata is not None else None,
    )


def from_delivery(row: DeliveryRow) -> tuple[Any, ...]:
    """The values to write to `deliveries`, in the order of `DELIVERY_COLUMNS`."""
    headers = orjson.dumps(row.delivery.headers).decode()
    return (*_delivered(row.delivery), headers, row.generation_id, row.outcome, row.attempts)


def from_transition(transition: Transition) -> tuple[Any, ...]:
    """The values to write to `transitions`, in the order of `TRANSITION_COLUMNS`."""
    written: tuple[Any, ...] = _transition(transition)
    return written


def bodies_apart(written: Iterable[DeliveryRow]) -> tuple[bytes, list[tuple[Any, ...]]]:
    """All bodies joined, and rows that refer to them by position and length: JSON can't hold bytes.

    In place of `body`, a row has the position of its body's first byte, counted from 1; its last value is the length.
    """
    bodies = bytearray()
    placed = []
    for item in written:
        row = list(from_delivery(item))
        body, row[BODY] = row[BODY], len(bodies) + 1
        bodies += body
        placed.append((*row, len(body)))
    return bytes(bodies), placed


def to_transition(row: Row) -> Transition:
    """The transition in a row of `transitions`."""
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


def to_delivery(row: Row) -> StoredDelivery:
    """The delivery in a row of `deliveries`, with body and headers if they were selected."""
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
