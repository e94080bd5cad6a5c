"""Metrics and log events of reports that were committed, and the metrics of batches."""

import logging
from collections import Counter as Count
from collections.abc import Sequence

import structlog
from prometheus_client import Counter, Histogram

from app.ledger.decide import Recorded
from app.ledger.models import Report, Status

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
    """Count what was committed, in one log line; a line for each missed callback, and at debug for everything."""
    outcomes, steps = Count[str](), Count[tuple[str, str, str]]()
    for report, item in zip(reports, recorded, strict=True):
        if report.delivery is not None:
            outcomes["duplicate" if item.is_duplicate else item.outcome.value] += 1
        if (moved := item.transition) is not None:
            steps[moved.from_status or "none", moved.to_status, moved.source] += 1
    for outcome, count in outcomes.items():
        DELIVERIES.labels(outcome).inc(count)
    for step, count in steps.items():
        TRANSITIONS.labels(*step).inc(count)
    if reports:
        settled = sum(count for (_, status, _), count in steps.items() if Status(status).is_terminal)
        log.info("batch.recorded", reports=len(reports), transitions=steps.total(), settled=settled, **outcomes)
    _log_missed(recorded)
    if logging.getLogger(__name__).isEnabledFor(logging.DEBUG):
        _log_each(reports, recorded)


def _log_missed(recorded: Sequence[Recorded]) -> None:
    for item in recorded:
        if item.missed_callback and item.transition is not None:
            CALLBACKS_MISSED.inc()
            log.info(
                "callback.missed",
                generation_id=item.transition.generation_id,
                status=item.transition.to_status.value,
            )


def _log_each(reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
    for report, item in zip(reports, recorded, strict=True):
        if report.delivery is not None:
            outcome = "duplicate" if item.is_duplicate else item.outcome.value
            log.debug(
                "delivery.recorded", event_id=report.event_id, generation_id=report.generation_id, outcome=outcome
            )
        if (transition := item.transition) is not None:
            log.debug(
                "generation.settled" if transition.to_status.is_terminal else "generation.moved",
                generation_id=transition.generation_id,
                number=transition.number,
                from_status=transition.from_status,
                to_status=transition.to_status.value,
                source=transition.source.value,
            )
