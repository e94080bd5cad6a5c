"""What the ledger counts and logs, after the commit."""

from collections.abc import Sequence

import structlog
from prometheus_client import Counter, Histogram

from app.ledger.plan import Recorded
from app.ledger.report import Report

DELIVERIES = Counter("receiver_deliveries", "Verified deliveries, by outcome.", ["outcome"])
TRANSITIONS = Counter("receiver_transitions", "Accepted status changes.", ["from_status", "to_status", "source"])
CALLBACKS_MISSED = Counter("receiver_callbacks_missed", "Outcomes that a poll found before any callback came.")
BATCH_SIZE = Histogram(
    "receiver_batch_size", "Reports recorded by one commit.", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500)
)
COMMIT_SECONDS = Histogram(
    "receiver_commit_seconds",
    "Time to record one batch, commit included.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

log = structlog.stdlib.get_logger(__name__)


def note_recorded(reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
    """Count and log what was committed."""
    for report, item in zip(reports, recorded, strict=True):
        if report.delivery is not None:
            _note_delivery(report, item)
        if item.transition is not None:
            _note_transition(item)


def _note_delivery(report: Report, item: Recorded) -> None:
    outcome = "duplicate" if item.is_duplicate else item.outcome
    DELIVERIES.labels(outcome).inc()
    delivery = report.delivery
    log.info(
        "delivery.recorded",
        event_id=delivery.event_id if delivery is not None else None,
        generation_id=report.generation_id,
        outcome=outcome,
    )


def _note_transition(item: Recorded) -> None:
    transition = item.transition
    if transition is None:
        return
    TRANSITIONS.labels(transition.from_status or "none", transition.to_status, transition.source).inc()
    if item.missed_callback:
        CALLBACKS_MISSED.inc()
    log.info(
        "generation.settled" if transition.to_status.is_terminal else "generation.moved",
        generation_id=transition.generation_id,
        number=transition.number,
        from_status=transition.from_status,
        to_status=transition.to_status,
        source=transition.source,
        missed_callback=item.missed_callback,
    )
