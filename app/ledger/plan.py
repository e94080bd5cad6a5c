"""What a whole batch of reports does: reports folded one after another, into rows to write; pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from app.core.records import value
from app.ledger.decide import FirstPoll, decide
from app.ledger.report import Delivery, Report, Source
from app.ledger.state import Generation, Transition
from app.ledger.status import Outcome


@value()
class Recorded:
    """What became of one report."""

    outcome: Outcome
    generation: Generation | None = None
    """As it stands after the report; None where the report speaks of none."""
    transition: Transition | None = None
    is_duplicate: bool = False
    """The same event had been recorded before: nothing changed but its count of attempts."""

    @property
    def missed_callback(self) -> bool:
        """A poll found the outcome, and no callback had come."""
        return (
            self.transition is not None
            and self.transition.source is Source.POLL
            and self.transition.to_status.is_terminal
            and self.generation is not None
            and self.generation.callback_received_at is None
        )


@dataclass(slots=True)
class DeliveryRow:
    """A delivery to be stored, or one more attempt of one that is there."""

    delivery: Delivery
    outcome: Outcome
    generation_id: str | None
    attempts: int = 1


@dataclass(slots=True)
class Plan:
    """Rows to write, in the order of their keys, and what to answer to each report."""

    recorded: list[Recorded] = field(default_factory=list)
    deliveries: dict[str, DeliveryRow] = field(default_factory=dict)
    generations: dict[str, Generation] = field(default_factory=dict)
    transitions: list[Transition] = field(default_factory=list)


Decide = Callable[[Mapping[str, Generation], Mapping[str, Outcome]], Plan]
"""`plan` for given reports: from the generations and events that are stored to what is to be written."""


def plan(
    reports: Sequence[Report],
    generations: Mapping[str, Generation],
    known_events: Mapping[str, Outcome],
    *,
    first_poll: FirstPoll,
) -> Plan:
    """Fold `reports` over what is stored: the `generations` and `known_events` that they concern."""
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
