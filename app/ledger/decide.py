"""Decides what a report changes: pure functions of the stored generation and the report's claim."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from app.core.models import Claim, hot_dataclass
from app.core.records import dump_json
from app.ledger.models import (
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
    may_track,
)

FirstPoll = Callable[[str | None, datetime], datetime]
"""Returns when to poll a generation of this model, first seen at this time, if no callback has come by then."""

Changes = dict[str, Any]
"""New values of members of a `Generation`, by name. Only `next_poll_at` ever becomes None again."""

_NOTHING_KNOWN = Generation(
    id="", status=Status.QUEUED, tracking=Tracking.WATCHING, first_seen_at=datetime(1970, 1, 1, tzinfo=UTC)
)
MOST_METADATA_CHANGES = 100
_LONGEST_PREFIX = 250
"""Characters of an event id before a digest: the whole is no longer than an event id may be."""
_CLAIMED_MEMBERS = ("model", "reserved_credits", "final_credits", "created_at", "updated_at")


@hot_dataclass()
class Decision:
    """The result of one report: the generation after it, what changed, and the transition if the status did."""

    outcome: Outcome
    generation: Generation
    changes: Changes
    transition: Transition | None = None


def decide(current: Generation | None, report: Report, claim: Claim, *, first_poll: FirstPoll) -> Decision:
    """Apply the `claim` of `report` to `current` (None: the generation is not stored yet)."""
    claimed = Status(claim.status)
    if report.is_fenced and current is not None and not may_track(current, report.token):
        return Decision(Outcome.STALE, current, {})
    outcome = classify(current.status if current is not None else None, claimed)
    known = current if current is not None else _NOTHING_KNOWN
    changes = _common_changes(known, report, claim)
    if outcome is not Outcome.APPLIED:
        if claimed is known.status:
            changes |= _filled_changes(known, claim)
        changes |= _poll_changes(known, known.status, changes, report, first_poll)
        return Decision(outcome, _apply(current, changes, report, claim), changes)
    changes |= _newer_changes(known, claim)
    changes["status"], changes["last_number"] = claimed, known.last_number + 1
    if claimed.is_terminal:
        changes |= {"tracking": Tracking.SETTLED, "next_poll_at": None}
        changes |= {"settled_at": report.reported_at, "settled_by": report.source}
        if claimed is Status.FAILED:
            changes["failed_at"] = report.reported_at
    else:
        changes |= _poll_changes(known, claimed, changes, report, first_poll)
    generation = _apply(current, changes, report, claim)
    return Decision(outcome, generation, changes, _transition(current, report, claim, claimed))


def _apply(current: Generation | None, changes: Changes, report: Report, claim: Claim) -> Generation:
    if current is not None:
        return changed(current, changes) if changes else current
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
    if known.client_request_id is None and (order := report.client_request_id or claim.client_request_id) is not None:
        changes["client_request_id"] = order
    changes |= _owner_changes(known, report)
    if known.model is None and claim.model is not None:
        changes["model"] = claim.model
    if report.metadata is not None and report.metadata != known.metadata:
        changes |= _metadata_changes(known, report, report.metadata)
    if report.source is Source.WEBHOOK and known.callback_received_at is None:
        changes["callback_received_at"] = report.reported_at
    if report.source is Source.POLL:
        changes["polls"] = known.polls + 1
    return changes


def _metadata_changes(known: Generation, report: Report, metadata: Mapping[str, Any]) -> Changes:
    if not report.may_change_metadata(known.metadata_by):
        return {}
    now = report.reported_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    digest = sha256(dump_json(metadata)).hexdigest()
    history = [*(known.metadata_changes or ()), {"by": report.token, "at": now, "sha256": digest}]
    changes: Changes = {"metadata": metadata, "metadata_changes": history[-MOST_METADATA_CHANGES:]}
    if known.metadata_by is None and report.token is not None:
        changes["metadata_by"] = report.token
    return changes


def _owner_changes(known: Generation, report: Report) -> Changes:
    """Whose it is: of the token that submitted it, and of the one that tracked it while it was nobody's."""
    if report.token is None or known.submitted_by is not None:
        return {}
    if report.source is Source.SUBMIT:
        return {"submitted_by": report.token}
    is_tracked = report.source is Source.OPERATOR and known.tracked_by is None
    return {"tracked_by": report.token} if is_tracked else {}


def _newer_changes(known: Generation, claim: Claim) -> Changes:
    """Changes by a claim that is newer than what is stored: its members replace the stored ones."""
    changes: Changes = {"rivya_object": {**known.rivya_object, **claim.object} if known.rivya_object else claim.object}
    for name in _CLAIMED_MEMBERS:
        value = getattr(claim, name)
        if value is not None and value != getattr(known, name):
            changes[name] = value
    return changes


def _filled_changes(known: Generation, claim: Claim) -> Changes:
    """Changes by a claim with the stored status: it fills members that are missing, and replaces none."""
    present = {name: value for name, value in known.rivya_object.items() if value is not None}
    merged = {**known.rivya_object, **claim.object, **present}
    changes: Changes = {"rivya_object": merged} if merged != known.rivya_object else {}
    for name in _CLAIMED_MEMBERS:
        value = getattr(claim, name)
        if value is not None and getattr(known, name) is None:
            changes[name] = value
    return changes


def _poll_changes(
    known: Generation, status: Status, changes: Changes, report: Report, first_poll: FirstPoll
) -> Changes:
    """The next poll of an open generation: what the poller decided, else the stored one, else the first."""
    if status.is_terminal:
        return {}
    if report.next_poll is not None:
        return {"next_poll_at": report.next_poll.poll_at, "tracking": report.next_poll.tracking}
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


@hot_dataclass()
class KnownEvent:
    """What is stored of an event."""

    outcome: Outcome
    event_type: str | None
    generation_id: str | None
    body: bytes | None
    """Only where neither a type nor a generation could be read."""


@dataclass(slots=True)
class DeliveryRow:
    """A delivery to store, or more attempts of a stored one."""

    delivery: Delivery
    outcome: Outcome
    generation_id: str | None
    attempts: int = 1
    is_stored: bool = False


@dataclass(slots=True)
class GenerationRow:
    """A generation to insert or to update, with all changes of a batch."""

    generation: Generation
    stored: Generation | None
    """As it was read; None: it is new."""
    report: Report
    """The first one that changed it."""
    changes: Changes = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """Rows to write, by key, and the result of each report in order."""

    recorded: list[Recorded] = field(default_factory=list)
    deliveries: dict[str, DeliveryRow] = field(default_factory=dict)
    generations: dict[str, GenerationRow] = field(default_factory=dict)
    transitions: list[Transition] = field(default_factory=list)


Decide = Callable[[Mapping[str, Generation], Mapping[str, KnownEvent]], Plan]
"""`plan` for given reports: takes the stored generations and events, returns what to write."""


def plan(
    reports: Sequence[Report],
    generations: Mapping[str, Generation],
    known_events: Mapping[str, KnownEvent],
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
    known_events: Mapping[str, KnownEvent],
    first_poll: FirstPoll,
) -> Recorded:
    delivery = report.delivery
    if delivery is None:
        return _record(report, result, generations, first_poll)
    row = _stored(delivery, result, known_events)
    if row is not None and not _is_same(row, report, delivery):
        delivery = replace(delivery, event_id=reused_id(delivery))
        report = replace(report, delivery=delivery)
        row = _stored(delivery, result, known_events)
    if row is not None:
        row.attempts += 1
        result.deliveries[delivery.event_id] = row
        return Recorded(row.outcome, is_duplicate=True)
    recorded = _record(report, result, generations, first_poll)
    generation_id = report.generation_id or delivery.mentioned_id
    result.deliveries[delivery.event_id] = DeliveryRow(delivery, recorded.outcome, generation_id)
    return recorded


def _stored(delivery: Delivery, result: Plan, known_events: Mapping[str, KnownEvent]) -> DeliveryRow | None:
    """The row of the event with this id, of this batch or as it is stored with no new attempt yet."""
    row = result.deliveries.get(delivery.event_id)
    if row is not None or (known := known_events.get(delivery.event_id)) is None:
        return row
    stored = replace(delivery, event_type=known.event_type, body=known.body or b"")
    return DeliveryRow(stored, known.outcome, known.generation_id, attempts=0, is_stored=True)


def _is_same(row: DeliveryRow, report: Report, delivery: Delivery) -> bool:
    """Whether this is another attempt of the stored event: about the same generation, of the same type.

    Rivya may write the body of an attempt anew, so bytes are compared only where nothing could be read from them.
    """
    generation_id = report.generation_id or delivery.mentioned_id
    if (row.generation_id, row.delivery.event_type) != (generation_id, delivery.event_type):
        return False
    return generation_id is not None or delivery.event_type is not None or row.delivery.body == delivery.body


def concerned(reports: Iterable[Report]) -> tuple[list[str], list[str]]:
    """The ids of the generations and of the events that `reports` are about."""
    ids = {report.claim.id for report in reports if report.claim is not None}
    return list(ids), [report.delivery.event_id for report in reports if report.delivery is not None]


def reused_id(delivery: Delivery) -> str:
    """The key of a delivery that came under the id of another event: nothing verified is thrown away."""
    digest = sha256(delivery.event_id.encode() + b":" + delivery.body).hexdigest()[:32]
    return f"{delivery.event_id[:_LONGEST_PREFIX]}:{digest}"


def reused_ids(reports: Iterable[Report], known_events: Mapping[str, KnownEvent]) -> list[str]:
    """The keys under which the deliveries of `reports` may be stored that reuse an id of `known_events`."""
    nothing = Plan()
    return [
        reused_id(report.delivery)
        for report in reports
        if report.delivery is not None
        and (row := _stored(report.delivery, nothing, known_events)) is not None
        and not _is_same(row, report, report.delivery)
    ]


def _record(report: Report, result: Plan, generations: Mapping[str, Generation], first_poll: FirstPoll) -> Recorded:
    claim = report.claim
    if claim is None:
        stored_outcome = report.delivery.stored_outcome if report.delivery is not None else None
        return Recorded(stored_outcome or Outcome.UNREADABLE)
    row = result.generations.get(claim.id)
    current = row.generation if row is not None else generations.get(claim.id)
    if current is None and report.delivery is not None and report.delivery.stored_outcome is not None:
        return Recorded(report.delivery.stored_outcome)
    decision = decide(current, report, claim, first_poll=first_poll)
    # With a delivery the generation is written even if nothing changed: a removal at the same time then shows.
    if decision.changes or report.delivery is not None:
        if row is None:
            row = result.generations[claim.id] = GenerationRow(decision.generation, current, report)
        row.generation = decision.generation
        row.changes |= decision.changes
    if decision.transition is not None:
        result.transitions.append(decision.transition)
    return Recorded(decision.outcome, decision.generation, decision.transition)


# Usage: how generations count in the sums by hour, token and model.

_DECIMALS = 9
_HOUR = 3600  # seconds: cutting a time at its hour costs several times as much as dividing it


def usage_changes(generations: Iterable[tuple[Generation | None, Generation | None]]) -> list[tuple[Any, ...]]:
    """What the sums of usage change by, for generations before and after a change; None: there is no such generation.

    Returns rows of the table `usage_changes`, without those that change nothing.
    """
    sums: defaultdict[tuple[float, str | None, str | None], list[float]] = defaultdict(lambda: [0, 0, 0.0, 0.0])
    for before, after in generations:
        for times, it in ((-1, before), (1, after)):
            if it is None:
                continue
            line = sums[it.first_seen_at.timestamp() // _HOUR, it.submitted_by, it.model]
            line[0] += times
            line[1] += times * (it.settled_at is None)
            line[2] += times * (it.reserved_credits or 0)
            line[3] += times * (it.final_credits or 0)
    rounded = [
        (datetime.fromtimestamp(hours * _HOUR, UTC), *of, *line[:2], *(round(value, _DECIMALS) for value in line[2:]))
        for (hours, *of), line in sums.items()
    ]
    return [row for row in rounded if any(row[3:])]
