"""What one report does to one generation: a pure function of what is known and what is claimed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from app.ledger.report import Claim, Report, Source
from app.ledger.state import Generation, Transition
from app.ledger.status import Outcome, Status, Tracking, judge

FirstPoll = Callable[[str | None, datetime], datetime]
"""When a generation of this model, heard of at this moment, is to be polled if its callback hasn't come."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a report: the generation as it is now, and the transition if there was one."""

    outcome: Outcome
    generation: Generation
    transition: Transition | None = None


def decide(current: Generation | None, report: Report, claim: Claim, *, first_poll: FirstPoll) -> Decision:
    """Apply `claim`, made by `report`, to `current` (None: a generation never heard of)."""
    claimed = Status(claim.status)
    outcome = judge(current.status if current is not None else None, claimed)
    known = current if current is not None else _unheard_of(report, claim)
    generation = _note_report(known, report, claim)
    if outcome is not Outcome.APPLIED:
        learnt = _learn_missing(generation, claim) if claimed is known.status else generation
        return Decision(outcome, _keep_watching(learnt, report, first_poll=first_poll))
    transition = Transition(
        generation_id=claim.id,
        number=known.last_number + 1,
        from_status=current.status if current is not None else None,
        to_status=claimed,
        source=report.source,
        event_id=report.event_id,
        occurred_at=claim.updated_at,
        recorded_at=report.reported_at,
    )
    moved = replace(_learn(generation, claim), status=claimed, last_number=transition.number)
    if claimed.is_terminal:
        return Decision(outcome, _settle(moved, report), transition)
    return Decision(outcome, _keep_watching(moved, report, first_poll=first_poll), transition)


def _unheard_of(report: Report, claim: Claim) -> Generation:
    return Generation(
        id=claim.id,
        status=Status.QUEUED,
        first_seen_at=report.reported_at,
        tracking=Tracking.WATCHING,
    )


def _note_report(known: Generation, report: Report, claim: Claim) -> Generation:
    """What is noted whatever the claim is worth: that it came, and who it belongs to."""
    changes: dict[str, Any] = {"revision": known.revision + 1}
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
    return replace(known, **changes)


def _learn(known: Generation, claim: Claim) -> Generation:
    """A newer word on the generation: its members replace the older ones."""
    return replace(
        known,
        model=claim.model if claim.model is not None else known.model,
        rivya_object={**known.rivya_object, **claim.object},
        reserved_credits=claim.reserved_credits if claim.reserved_credits is not None else known.reserved_credits,
        final_credits=claim.final_credits if claim.final_credits is not None else known.final_credits,
        created_at=claim.created_at or known.created_at,
        updated_at=claim.updated_at or known.updated_at,
    )


def _learn_missing(known: Generation, claim: Claim) -> Generation:
    """The same status again: it may fill what an earlier, shorter word left open, and changes nothing else."""
    present = {name: value for name, value in known.rivya_object.items() if value is not None}
    return replace(
        known,
        rivya_object={**known.rivya_object, **claim.object, **present},
        reserved_credits=known.reserved_credits if known.reserved_credits is not None else claim.reserved_credits,
        final_credits=known.final_credits if known.final_credits is not None else claim.final_credits,
        created_at=known.created_at or claim.created_at,
        updated_at=known.updated_at or claim.updated_at,
    )


def _settle(generation: Generation, report: Report) -> Generation:
    return replace(
        generation,
        tracking=Tracking.SETTLED,
        settled_at=report.reported_at,
        settled_by=report.source,
        next_poll_at=None,
        lease_until=None,
    )


def _keep_watching(generation: Generation, report: Report, *, first_poll: FirstPoll) -> Generation:
    """An open generation has a next poll: the poller's word if it spoke, else the one it has, else the first."""
    if generation.status.is_terminal:
        return generation
    if report.polled is not None:
        return replace(generation, next_poll_at=report.polled.next_poll_at, tracking=report.polled.tracking)
    if generation.next_poll_at is not None:
        return generation
    next_poll_at = first_poll(generation.model, report.reported_at)
    return replace(generation, next_poll_at=next_poll_at, tracking=Tracking.WATCHING)
