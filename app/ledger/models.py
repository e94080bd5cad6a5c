"""The types of the ledger: reports, generations and transitions, and the filters and results of reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

from app.core.models import Claim, hot_dataclass

# The status of a generation: queued → processing → succeeded | failed; steps may be skipped, never undone.


class Status(StrEnum):
    """The four statuses of a generation at Rivya."""

    QUEUED = "queued"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        """No other status can follow."""
        return self is Status.SUCCEEDED or self is Status.FAILED


class Tracking(StrEnum):
    """How we follow a generation."""

    WATCHING = "watching"
    """Open; polled when its callback is overdue."""
    SETTLED = "settled"
    """Its outcome is known."""
    STALLED = "stalled"
    """Open past our horizon (our own time-out, not a failure at Rivya); polled rarely, still accepts an outcome."""
    LOST = "lost"
    """Rivya answered 404 repeatedly; not polled any more, still accepts an outcome."""


OPEN_STATES = (Tracking.WATCHING, Tracking.STALLED, Tracking.LOST)
"""How an open generation is followed: the states of the rows of `polls`."""


class Outcome(StrEnum):
    """What a report did to the ledger."""

    APPLIED = "applied"
    """It changed the status of a generation, or was the first report of one."""
    STALE = "stale"
    """Its status is the stored one, or an earlier one."""
    CONFLICT = "conflict"
    """It contradicts a terminal status; stored as evidence, not applied."""
    TEST = "test"
    """A test event."""
    UNKNOWN_TYPE = "unknown_type"
    """A verified event of an unknown type."""
    UNREADABLE = "unreadable"
    """A verified delivery from which no generation could be read."""


_RANK = {Status.QUEUED: 0, Status.PROCESSING: 1, Status.SUCCEEDED: 2, Status.FAILED: 2}


def classify(current: Status | None, claimed: Status) -> Outcome:
    """The outcome of a claim, given the stored status (None: the generation is not stored yet)."""
    if current is None or _RANK[claimed] > _RANK[current]:
        return Outcome.APPLIED
    if current.is_terminal and claimed.is_terminal and claimed is not current:
        return Outcome.CONFLICT
    return Outcome.STALE


class Source(StrEnum):
    """Where a report comes from."""

    SUBMIT = "submit"
    WEBHOOK = "webhook"
    POLL = "poll"
    OPERATOR = "operator"


@hot_dataclass(kw_only=True)
class Delivery:
    """A verified POST from Rivya, stored as evidence."""

    event_id: str
    event_type: str | None
    endpoint_id: str | None
    received_at: datetime
    body: bytes
    headers: Mapping[str, str]
    """Only the content type, the user agent and those of the signature."""
    stored_outcome: Outcome | None = None
    """`test`, `unknown_type` or `unreadable` where the delivery does not affect the status of a generation.

    `test` or `stale` together with a claim: it is used if the generation is not known; if it is, the claim is decided
    as usual.
    """
    mentioned_id: str | None = None
    """The id of the generation that such a delivery mentions, if any."""


@hot_dataclass()
class NextPoll:
    """When to poll an open generation again (None: never), and how it is tracked from now on."""

    poll_at: datetime | None
    tracking: Tracking


@hot_dataclass(kw_only=True)
class Report:
    """One claim about a generation, or one delivery without a claim."""

    source: Source
    reported_at: datetime
    claim: Claim | None = None
    delivery: Delivery | None = None
    next_poll: NextPoll | None = None
    """The poller's decision, in case the generation is still open."""
    client_request_id: str | None = None
    token: str | None = None
    """Name of the token of the caller that submitted or tracked the generation."""
    metadata: Mapping[str, Any] | None = None
    is_admin: bool = False
    """Its token may replace metadata that another token has set."""
    is_fenced: bool = False
    """The token reaches only what belongs to it: it changes nothing of a generation that belongs to another."""
    replayed_event_id: str | None = None
    """The stored event that an operator replays; it is not stored or counted again."""

    def may_change_metadata(self, of: str | None) -> bool:
        """Whether metadata that the token named `of` has set may be replaced by this report; None: there is none."""
        return of in (None, self.token) or self.is_admin

    @property
    def event_id(self) -> str | None:
        """The id of the event that this report comes from."""
        return self.delivery.event_id if self.delivery is not None else self.replayed_event_id

    @property
    def generation_id(self) -> str | None:
        """The id of the generation whose status this report claims."""
        return self.claim.id if self.claim is not None else None


# A generation as the ledger stores it: one row of `generations` and, while it is open, one of `polls`.


@hot_dataclass()
class Generation:
    """Members are the columns of `generations`, with JSON parsed, and what the API shows of `polls`."""

    id: str
    status: Status
    first_seen_at: datetime
    tracking: Tracking
    """Settled if it has no row in `polls`."""
    model: str | None = None
    rivya_object: Mapping[str, Any] = field(default_factory=dict)
    reserved_credits: float | None = None
    final_credits: float | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    client_request_id: str | None = None
    submitted_by: str | None = None
    tracked_by: str | None = None
    metadata: Mapping[str, Any] | None = None
    metadata_by: str | None = None
    metadata_changes: Sequence[Mapping[str, Any]] | None = None
    """Who changed the metadata and when, oldest first: the newest `MOST_METADATA_CHANGES`."""
    settled_at: datetime | None = None
    settled_by: Source | None = None
    failed_at: datetime | None = None
    callback_received_at: datetime | None = None
    last_number: int = 0
    revision: int = 0
    polls: int = 0
    next_poll_at: datetime | None = None


GENERATION_MEMBERS: Final = tuple(field.name for field in fields(Generation))
_PLACES: Final = {name: place for place, name in enumerate(GENERATION_MEMBERS)}
_values = attrgetter(*GENERATION_MEMBERS)


def changed(generation: Generation, changes: Mapping[str, Any]) -> Generation:
    """The generation with these members changed: `dataclasses.replace` in a quarter of its time."""
    values = list(_values(generation))
    for name, value in changes.items():
        values[_PLACES[name]] = value
    return Generation(*values)


def is_visible(generation: Generation, owner: str | None) -> bool:
    """Whether a caller sees this generation and whatever is about it: the one rule, for every route.

    `owner` is the name of the token whose own things the caller sees, None for a caller that sees everything.
    What a token submitted or tracked is its own; `app.ledger.sql` states the same for lists.
    """
    return owner is None or owner in (generation.submitted_by, generation.tracked_by)


def may_track(generation: Generation, owner: str | None) -> bool:
    """Whether a caller may track this generation: one that it sees, or one that is nobody's yet."""
    is_nobodys = generation.submitted_by is None and generation.tracked_by is None
    return is_nobodys or is_visible(generation, owner)


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


# Filters, positions and pages of the reads.


Item = TypeVar("Item")

MOST_OPEN: Final = 5000
"""Open generations are counted up to this number; this number may mean more."""
MOST_OVERDUE: Final = 1001
"""Overdue generations are counted up to this number, row by row; RECEIVER_ALARM_OVERDUE is less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationFilter:
    """Which generations are listed; None does not filter."""

    status: Status | None = None
    tracking: Tracking | None = None
    model: str | None = None
    client_request_id: str | None = None
    submitted_by: str | None = None
    owner: str | None = None
    """Only what `is_visible` to this owner."""
    created_after: datetime | None = None
    """First seen at this time or later."""
    created_before: datetime | None = None
    """First seen before this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries are listed or replayed; None does not filter."""

    event_id: str | None = None
    generation_id: str | None = None
    outcome: Outcome | None = None
    event_type: str | None = None
    owner: str | None = None
    """Only those about generations that are `is_visible` to this owner."""
    received_after: datetime | None = None
    """Received at this time or later."""
    received_before: datetime | None = None
    """Received before this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events of the feed are read; None does not filter."""

    status: Status | None = None
    """The status that the transition led to."""
    generation_id: str | None = None
    model: str | None = None
    submitted_by: str | None = None
    client_request_id: str | None = None
    owner: str | None = None
    """Name of the token that the caller is confined to."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list that is ordered by time and then by id."""

    at: datetime
    id: str


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A part of a list, newest first."""

    items: Sequence[Item]
    last: Position | None
    """The position after which the next page begins; None at the end of the list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDelivery:
    """A row of `deliveries`; body and headers only where they were selected."""

    event_id: str
    event_type: str | None
    generation_id: str | None
    endpoint_id: str | None
    received_at: datetime
    outcome: Outcome
    attempts: int
    body_pruned_at: datetime | None = None
    """When its body and headers were emptied because of their age."""
    body: bytes | None = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStats:
    """Counts of the ledger at one time."""

    open: int
    """Generations without a final status, counted up to `MOST_OPEN`."""
    overdue: int
    """Watched generations whose next poll is overdue, counted up to `MOST_OVERDUE`."""
    last_verified_at: datetime | None
    """When the newest delivery was received; None before the first."""
