"""What the ledger works with: reports, the state of a generation, and what the reads give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final, Generic, Protocol, TypeVar

from app.core.records import hot_dataclass

# The life of a generation: queued → processing → succeeded | failed; steps may be skipped, never undone.


class Status(StrEnum):
    """Rivya's four words."""

    QUEUED = "queued"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        """Nothing follows."""
        return self is Status.SUCCEEDED or self is Status.FAILED


class Tracking(StrEnum):
    """What we do about a generation."""

    WATCHING = "watching"
    """Open; polled when its callback is overdue."""
    SETTLED = "settled"
    """Its outcome is known."""
    STALLED = "stalled"
    """Open past our horizon: our own time-out, not Rivya's failure; polled rarely, still accepts its outcome."""
    LOST = "lost"
    """Rivya says again and again that it does not exist; not polled, still accepts an outcome."""


class Outcome(StrEnum):
    """What a report did to the ledger."""

    APPLIED = "applied"
    """It moved a generation, or was the first word of one."""
    STALE = "stale"
    """It says what is known already, or something older."""
    CONFLICT = "conflict"
    """It contradicts a terminal status; kept, not believed."""
    TEST = "test"
    """A test event."""
    UNKNOWN_TYPE = "unknown_type"
    """A verified event of a type we don't know."""
    UNREADABLE = "unreadable"
    """A verified delivery in which no generation could be found."""


_RANK = {Status.QUEUED: 0, Status.PROCESSING: 1, Status.SUCCEEDED: 2, Status.FAILED: 2}


def classify(current: Status | None, claimed: Status) -> Outcome:
    """What a claim is worth, given what is known (None: never heard of)."""
    if current is None or _RANK[claimed] > _RANK[current]:
        return Outcome.APPLIED
    if current.is_terminal and claimed.is_terminal and claimed is not current:
        return Outcome.CONFLICT
    return Outcome.STALE


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


@hot_dataclass(kw_only=True)
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


@hot_dataclass(kw_only=True)
class Polled:
    """What the poller decided along with a status answer."""

    next_poll_at: datetime
    """When to ask again, should the generation still be open."""
    tracking: Tracking


@hot_dataclass(kw_only=True)
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
class TrackedClaim:
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


# A generation as the ledger knows it: one row of `generations`, never changed in memory.


@hot_dataclass(kw_only=True)
class Generation:
    """Members are the columns of `generations`; JSON columns hold what they mean."""

    id: str
    status: Status
    first_seen_at: datetime
    tracking: Tracking
    model: str | None = None
    rivya_object: Mapping[str, Any] = field(default_factory=dict)
    reserved_credits: float | None = None
    final_credits: float | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    client_request_id: str | None = None
    submitted_by: str | None = None
    metadata: Mapping[str, Any] | None = None
    settled_at: datetime | None = None
    settled_by: Source | None = None
    callback_received_at: datetime | None = None
    last_number: int = 0
    revision: int = 0
    next_poll_at: datetime | None = None
    lease_until: datetime | None = None
    polls: int = 0
    poll_failures: int = 0
    last_poll_error: str | None = None
    not_found_count: int = 0
    not_found_since: datetime | None = None


_NAMES = tuple(field.name for field in fields(Generation))
_values = attrgetter(*_NAMES)


def changed(generation: Generation, changes: Mapping[str, Any]) -> Generation:
    """The generation with these members changed: `dataclasses.replace`, at a third of its price."""
    return Generation(**{**dict(zip(_NAMES, _values(generation), strict=True)), **changes})


@hot_dataclass(kw_only=True)
class Transition:
    """A status change that the ledger accepted: one row of `transitions`."""

    generation_id: str
    number: int
    from_status: Status | None
    to_status: Status
    source: Source
    event_id: str | None
    occurred_at: datetime | None
    recorded_at: datetime


# The latest moments for which a poll can have been scheduled: what waits for longer was written by another clock.


@dataclass(frozen=True, slots=True, kw_only=True)
class PollTimeLimits:
    """By what became of the last poll."""

    watched: datetime
    failing: datetime
    """For a watched generation whose last poll brought nothing."""
    stalled: datetime


# What the record is asked for, and what it answers: filters, positions, pages; pure.


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
class LedgerStats:
    """How the record stands at one moment."""

    open: int
    """Generations whose outcome isn't known, counted up to `MOST_OPEN`."""
    overdue: int
    """Generations under watch whose next poll should have begun, counted up to `MOST_OVERDUE`."""
    last_verified_at: datetime | None
    """When the newest delivery came; None before the first."""
