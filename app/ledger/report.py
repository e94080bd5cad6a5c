"""A report: what anybody has learnt about a generation, who says it, and when; the ledger's only input."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from app.core.records import value
from app.ledger.status import Outcome, Status, Tracking


class Source(StrEnum):
    """Who says it."""

    SUBMIT = "submit"
    WEBHOOK = "webhook"
    POLL = "poll"
    OPERATOR = "operator"


class Claim(Protocol):
    """What a report says of a generation; `app.rivya.payloads.Generation` fits."""

    @property
    def id(self) -> str:
        """Rivya's id."""

    @property
    def status(self) -> str:
        """One of Rivya's four words."""

    @property
    def model(self) -> str | None:
        """The model, where it was said."""

    @property
    def reserved_credits(self) -> float | None:
        """Credits held back."""

    @property
    def final_credits(self) -> float | None:
        """Credits charged."""

    @property
    def created_at(self) -> datetime | None:
        """Rivya's time."""

    @property
    def updated_at(self) -> datetime | None:
        """Rivya's time."""

    @property
    def client_request_id(self) -> str | None:
        """The caller's trace id, if Rivya tells it."""

    @property
    def object(self) -> Mapping[str, Any]:
        """Rivya's object as it came, JSON-able, unknown members included."""


@value(kw_only=True)
class Delivery:
    """A verified POST from Rivya, to be kept as evidence."""

    event_id: str
    event_type: str | None
    endpoint_id: str | None
    received_at: datetime
    body: bytes
    headers: Mapping[str, str]
    """Only those that matter: content type, user agent, and the signature's."""
    kept_as: Outcome | None = None
    """`test`, `unknown_type` or `unreadable` where the delivery has no say in a generation's status."""
    about: str | None = None
    """The generation that such a delivery mentions, if any."""


@value(kw_only=True)
class Polled:
    """What the poller decided along with a status answer."""

    next_poll_at: datetime
    """When to ask again, should the generation still be open."""
    tracking: Tracking


@value(kw_only=True)
class Report:
    """One claim (or one delivery that claims nothing)."""

    source: Source
    reported_at: datetime
    claim: Claim | None = None
    delivery: Delivery | None = None
    polled: Polled | None = None
    client_request_id: str | None = None
    submitted_by: str | None = None
    """Name of the token whose create it was."""
    metadata: Mapping[str, Any] | None = None
    replayed_event_id: str | None = None
    """The stored delivery that an operator replays; it is neither stored nor counted again."""

    @property
    def event_id(self) -> str | None:
        """The event that this report comes from."""
        return self.delivery.event_id if self.delivery is not None else self.replayed_event_id

    @property
    def generation_id(self) -> str | None:
        """The generation whose status this report speaks of."""
        return self.claim.id if self.claim is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """A claim that names a generation made elsewhere: it exists, so it has at least been queued."""

    id: str
    model: str | None = None
    client_request_id: str | None = None
    status: str = Status.QUEUED
    reserved_credits: None = None
    final_credits: None = None
    created_at: None = None
    updated_at: None = None
    object: Mapping[str, Any] = field(default_factory=dict)
