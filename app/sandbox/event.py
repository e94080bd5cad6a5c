"""What Rivya reports: an event, and the delivery of one event to one endpoint with all its attempts."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from app.sandbox.clock import stamp
from app.sandbox.envelope import API_VERSION
from app.sandbox.faults import DeliveryFaults
from app.sandbox.ids import new_id

Fate = Literal["pending", "succeeded", "failed", "abandoned", "dropped"]


@dataclass(frozen=True)
class Event:
    """Something that happened; `carried` is the object in its body."""

    id: str
    account: str
    type: str
    created_at: datetime
    carried: dict[str, Any]
    generation_id: str | None = None

    def head(self) -> dict[str, Any]:
        """The documented first members of a delivery's body."""
        return {
            "id": self.id,
            "type": self.type,
            "api_version": API_VERSION,
            "created_at": stamp(self.created_at),
        }

    def as_json(self) -> dict[str, Any]:
        """The event as `GET /webhook-events` lists it."""
        return {**self.head(), "object": "webhook_event", "data": self.carried}


@dataclass
class Delivery:
    """One event on its way to one endpoint; `abandoned` means the endpoint went away meanwhile."""

    event: Event
    endpoint_id: str
    created_at: datetime
    faults: DeliveryFaults = field(default_factory=DeliveryFaults)
    id: str = field(default_factory=lambda: new_id("whdel"))
    status: Fate = "pending"
    attempts: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The delivery as an endpoint's log lists it."""
        last = self.attempts[-1] if self.attempts else {}
        return {
            "id": self.id,
            "object": "webhook_delivery",
            "endpoint_id": self.endpoint_id,
            "event_id": self.event.id,
            "event_type": self.event.type,
            "status": self.status,
            "attempts": len(self.attempts),
            "response_status": last.get("response_status"),
            "error": last.get("error"),
            "created_at": stamp(self.created_at),
            "last_attempt_at": last.get("at"),
        }
