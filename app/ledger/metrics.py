"""Metrics and log events of the ledger: reports that were committed, and reports that could not be recorded."""

from collections import Counter as Count
from collections.abc import Sequence

import structlog
from prometheus_client import Counter, Histogram

from app.core.logs import info_each
from app.ledger.decide import Recorded
from app.ledger.models import Report, Transition

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


def log_recorded(reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
    """Count what was committed, and log a line for each delivery and each transition."""
    lines: list[dict[str, object]] = []
    outcomes: list[str] = []
    steps: list[tuple[str | None, str, str]] = []
    missed = 0
    for report, item in zip(reports, recorded, strict=True):
        if report.delivery is not None:
            outcome = "duplicate" if item.is_duplicate else item.outcome
            outcomes.append(outcome)
            lines.append(_delivered(report.delivery.event_id, report.generation_id, outcome))
        transition = item.transition
        if transition is not None:
            steps.append((transition.from_status, transition.to_status, transition.source))
            missed += item.missed_callback
            lines.append(_moved(transition, missed_callback=item.missed_callback))
    for outcome, count in Count(outcomes).items():
        DELIVERIES.labels(outcome).inc(count)
    for (from_status, to_status, source), count in Count(steps).items():
        TRANSITIONS.labels(from_status or "none", to_status, source).inc(count)
    CALLBACKS_MISSED.inc(missed)
    info_each(__name__, lines)


def log_failed(report: Report, error: Exception) -> None:
    """Log which report could not be recorded, so that it can be looked up: it is evidence of a bug."""
    log.error(
        "report.not_recorded",
        error=type(error).__name__,
        source=report.source,
        generation_id=report.generation_id,
        event_id=report.event_id,
    )


def _delivered(event_id: str, generation_id: str | None, outcome: str) -> dict[str, object]:
    return {"event": "delivery.recorded", "event_id": event_id, "generation_id": generation_id, "outcome": outcome}


def _moved(transition: Transition, *, missed_callback: bool) -> dict[str, object]:
    return {
        "event": "generation.settled" if transition.to_status.is_terminal else "generation.moved",
        "generation_id": transition.generation_id,
        "number": transition.number,
        "from_status": transition.from_status,
        "to_status": transition.to_status,
        "source": transition.source,
        "missed_callback": missed_callback,
    }
