"""Metrics and log events of reports that were committed, and the metrics of batches."""

import logging
from collections import Counter as Count
from collections.abc import Sequence

import structlog
from prometheus_client import Counter, Histogram

from app.ledger.decide import Recorded
from app.ledger.models import Report

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
    pairs = list(zip(reports, recorded, strict=True))
    outcomes = Count(_outcome(item) for report, item in pairs if report.delivery is not None)
    moved = [item.transition for item in recorded if item.transition is not None]
    missed = [item.transition for item in recorded if item.transition is not None and item.missed_callback]
    for outcome, count in outcomes.items():
        DELIVERIES.labels(outcome).inc(count)
    for step, count in Count((it.from_status or "none", it.to_status, it.source) for it in moved).items():
        TRANSITIONS.labels(*step).inc(count)
    CALLBACKS_MISSED.inc(len(missed))
    if reports:
        settled = sum(transition.to_status.is_terminal for transition in moved)
        log.info("batch.recorded", reports=len(reports), transitions=len(moved), settled=settled, **outcomes)
    for it in missed:
        log.info("callback.missed", generation_id=it.generation_id, status=it.to_status.value)
    for report, item in pairs if logging.getLogger(__name__).isEnabledFor(logging.DEBUG) else ():
        if report.delivery is not None:
            ids = {"event_id": report.event_id, "generation_id": report.generation_id}
            log.debug("delivery.recorded", **ids, outcome=_outcome(item))
        if (transition := item.transition) is not None:
            log.debug(
                "generation.settled" if transition.to_status.is_terminal else "generation.moved",
                generation_id=transition.generation_id,
                number=transition.number,
                from_status=transition.from_status,
                to_status=transition.to_status.value,
                source=transition.source.value,
            )


def _outcome(item: Recorded) -> str:
    return "duplicate" if item.is_duplicate else item.outcome.value
