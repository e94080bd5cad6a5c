"""What the record is asked for, and what it answers: filters, positions, pages; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar

from app.ledger.status import Outcome, Status, Tracking

Item = TypeVar("Item")

MOST_OPEN: Final = 5000
"""Open generations are counted so far: this many may mean more."""
MOST_OVERDUE: Final = 1001
"""Overdue ones are looked at in the table, one by one; RECEIVER_ALARM_OVERDUE is less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationFilter:
    """Which generations are listed; None narrows nothing."""

    status: Status | None = None
    tracking: Tracking | None = None
    model: str | None = None
    client_request_id: str | None = None
    submitted_by: str | None = None
    created_after: datetime | None = None
    """First heard of at this moment or later."""
    created_before: datetime | None = None
    """First heard of before this moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries are listed; None narrows nothing."""

    generation_id: str | None = None
    outcome: Outcome | None = None
    event_type: str | None = None
    received_after: datetime | None = None
    """Received at this moment or later."""
    received_before: datetime | None = None
    """Received before this moment."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list that is ordered by a moment and, within it, by an id."""

    at: datetime
    id: str


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A part of a list, newest first."""

    items: Sequence[Item]
    last: Position | None
    """The position after which the list goes on; None at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDelivery:
    """A row of `deliveries`; body and headers only where they were asked for."""

    event_id: str
    event_type: str | None
    generation_id: str | None
    endpoint_id: str | None
    received_at: datetime
    outcome: Outcome
    attempts: int
    body_pruned_at: datetime | None = None
    """When its body and headers were emptied for their age."""
    body: bytes | None = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the record stands at one moment."""

    open: int
    """Generations whose outcome isn't known, counted up to `MOST_OPEN`."""
    overdue: int
    """Generations under watch whose next poll should have begun, counted up to `MOST_OVERDUE`."""
    last_verified_at: datetime | None
    """When the newest delivery came; None before the first."""
