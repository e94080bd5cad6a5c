"""Decides what a report changes: pure functions of the stored generation and the report's claim."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from app.core.records import hot_dataclass
from app.ledger.models import (
    Claim,
    Delivery,
    Generation,
    Outcome,
    Report,
    Source,
    Status,
    Tracking,
    Transition,
    changed,
    classify,
)

FirstPoll = Callable[[str | None, datetime], datetime]
"""Returns when to poll a generation of this model, first seen at this time, if no callback has come by then."""

Changes = dict[str, Any]
"""New values of members of a `Generation`, by name."""

_NOTHING_KNOWN = Generation(
    id="", status=Status.QUEUED, tracking=Tracking.WATCHING, first_seen_at=datetime(1970, 1, 1, tzinfo=UTC)
)
_CLAIMED_MEMBERS = ("model", "reserved_credits", "final_credits", "created_at", "updated_at")


@hot_dataclass()
class Decision:
    """The result of one report: the generation after it, and the transition if the status changed."""

    outcome: Outcome
    generation: Generation
    transition: Transition | None = None


def decide(current: Generation | None, report: Report, claim: Claim, *, first_poll: FirstPoll) -> Decision:
    """Apply the `claim` of `report` to `current` (None: the generation is not stored yet)."""
    claimed = Status(claim.status)
    outcome = classify(current.status if current is not None else None, claimed)
    known = current if current is not None else _NOTHING_KNOWN
    changes = _common_changes(known, report, claim)
    if outcome is not Outcome.APPLIED:
        if claimed is known.status:
            changes |= _filled_changes(known, claim)
        changes |= _poll_changes(known, known.status, changes, report, first_poll)
        return Decision(outcome, _as_it_is(current, changes, report, claim))
    changes |= _newer_changes(known, claim)
    changes["status"], changes["last_number"] = claimed, known.last_number + 1
    changes |= (
        _settled_changes(report) if claimed.is_terminal else _poll_changes(known, claimed, changes, report, first_poll)
    )
    return Decision(outcome, _as_it_is(current, changes, report, claim), _transition(current, report, claim, claimed))


def _as_it_is(current: Generation | None, changes: Changes, report: Report, claim: Claim) -> Generation:
    if current is not None:
        return changed(current, changes)
    first = {"id": claim.id, "first_seen_at": report.reported_at, "tracking": Tracking.WATCHING}
    return Generation(**{**first, **changes})


def _transition(current: Generation | None, report: Report, claim: Claim, claimed: Status) -> Transition:
    return Transition(
        generation_id=claim.id,
        number=current.last_number + 1 if current is not None else 1,
        from_status=current.status if current is not None else None,
        to_status=claimed,
        source=report.source,
        event_id=report.event_id,
        occurred_at=claim.updated_at,
        recorded_at=report.reported_at,
    )


# Each of the following returns the members that change, and all changes are applied at once: a generation has two dozen
# members, and a new object for each step would cost more than everything else here.


def _common_changes(known: Generation, report: Report, claim: Claim) -> Changes:
    """Changes that apply whatever the outcome: the report was received, and whose generation it is."""
    changes: Changes = {}
    if known.client_request_id is None:
        changes["client_request_id"] = report.client_request_id or claim.client_request_id
    if known.submitted_by is None:
        changes["submitted_by"] = report.submitted_by
    if known.model is None:
        changes["model"] = claim.model
    if report.metadata is not None:
        changes["metadata"] = report.metadata
    if report.source is Source.WEBHOOK and known.callback_received_at is None:
        changes["callback_received_at"] = report.reported_at
    if report.source is Source.POLL:
        changes |= {
            "polls": known.polls + 1,
            "poll_failures": 0,
            "last_poll_error": None,
            "not_found_count": 0,
            "not_found_since": None,
            "lease_until": None,
        }
    return changes


def _newer_changes(known: Generation, claim: Claim) -> Changes:
    """Changes by a claim that is newer than what is stored: its members replace the stored ones."""
    changes: Changes = {"rivya_object": {**known.rivya_object, **claim.object} if known.rivya_object else claim.object}
    for name in _CLAIMED_MEMBERS:
        value = getattr(claim, name)
        if value is not None:
            changes[name] = value
    return changes


def _filled_changes(known: Generation, claim: Claim) -> Changes:
    """Changes by a claim with the stored status: it fills members that are missing, and replaces none."""
    present = {name: value for name, value in known.rivya_object.items() if value is not None}
    changes: Changes = {"rivya_object": {**known.rivya_object, **claim.object, **present}}
    for name in _CLAIMED_MEMBERS:
        if getattr(known, name) is None and name != "model":  # `_common_changes` sets the model
            changes[name] = getattr(claim, name)
    return changes


def _settled_changes(report: Report) -> Changes:
    return {
        "tracking": Tracking.SETTLED,
        "settled_at": report.reported_at,
        "settled_by": report.source,
        "next_poll_at": None,
        "lease_until": None,
    }


def _poll_changes(
    known: Generation, status: Status, changes: Changes, report: Report, first_poll: FirstPoll
) -> Changes:
    """The next poll of an open generation: what the poller decided, else the stored one, else the first."""
    if status.is_terminal:
        return {}
    if report.polled is not None:
        return {"next_poll_at": report.polled.next_poll_at, "tracking": report.polled.tracking}
    if known.next_poll_at is not None:
        return {}
    next_poll_at = first_poll(changes.get("model", known.model), report.reported_at)
    return {"next_poll_at": next_poll_at, "tracking": Tracking.WATCHING}


# What a batch of reports changes: the reports are applied one after another, and give the rows to write. Pure.


@hot_dataclass()
class Recorded:
    """The result of recording one report."""

    outcome: Outcome
    generation: Generation | None = None
    """The generation after the report; None where the report is about none."""
    transition: Transition | None = None
    is_duplicate: bool = False
    """The same event was recorded before: only its count of attempts changes."""

    @property
    def missed_callback(self) -> bool:
        """A poll returned the final status, and no callback had come."""
        return (
            self.transition is not None
            and self.transition.source is Source.POLL
            and self.transition.to_status.is_terminal
            and self.generation is not None
            and self.generation.callback_received_at is None
        )


@dataclass(slots=True)
class DeliveryRow:
    """A delivery to store, or one more attempt of a stored one."""

    delivery: Delivery
    outcome: Outcome
    generation_id: str | None
    attempts: int = 1


@dataclass(slots=True)
class Plan:
    """Rows to write, by key, and the result of each report in order."""

    recorded: list[Recorded] = field(default_factory=list)
    deliveries: dict[str, DeliveryRow] = field(default_factory=dict)
    generations: dict[str, Generation] = field(default_factory=dict)
    transitions: list[Transition] = field(default_factory=list)


Decide = Callable[[Mapping[str, Generation], Mapping[str, Outcome]], Plan]
"""`plan` for given reports: takes the stored generations and events, returns what to write."""


def plan(
    reports: Sequence[Report],
    generations: Mapping[str, Generation],
    known_events: Mapping[str, Outcome],
    *,
    first_poll: FirstPoll,
) -> Plan:
    """What to write for `reports`, given the stored `generations` and `known_events` that they concern."""
    result = Plan()
    for report in reports:
        result.recorded.append(_fold(report, result, generations, known_events, first_poll))
    return result


def _fold(
    report: Report,
    result: Plan,
    generations: Mapping[str, Generation],
    known_events: Mapping[str, Outcome],
    first_poll: FirstPoll,
) -> Recorded:
    delivery = report.delivery
    if delivery is not None and delivery.event_id in result.deliveries:
        row = result.deliveries[delivery.event_id]
        row.attempts += 1
        return Recorded(row.outcome, is_duplicate=True)
    if delivery is not None and delivery.event_id in known_events:
        outcome = known_events[delivery.event_id]
        result.deliveries[delivery.event_id] = DeliveryRow(delivery, outcome, report.generation_id or delivery.about)
        return Recorded(outcome, is_duplicate=True)
    recorded = _apply(report, result, generations, first_poll)
    if delivery is not None:
        generation_id = report.generation_id or delivery.about
        result.deliveries[delivery.event_id] = DeliveryRow(delivery, recorded.outcome, generation_id)
    return recorded


def _apply(report: Report, result: Plan, generations: Mapping[str, Generation], first_poll: FirstPoll) -> Recorded:
    claim = report.claim
    if claim is None:
        kept_as = report.delivery.kept_as if report.delivery is not None else None
        return Recorded(kept_as or Outcome.UNREADABLE)
    current = result.generations.get(claim.id) or generations.get(claim.id)
    decision = decide(current, report, claim, first_poll=first_poll)
    result.generations[claim.id] = decision.generation
    if decision.transition is not None:
        result.transitions.append(decision.transition)
    return Recorded(decision.outcome, decision.generation, decision.transition)
