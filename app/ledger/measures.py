"""What the ledger counts and logs, after the commit."""

from collections import Counter as Tally
from collections.abc import Sequence

import structlog
from prometheus_client import Counter, Histogram

from app.core.logs import info_each
from app.ledger.plan import Recorded
from app.ledger.report import Report
from app.ledger.state import Transition

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
    """Count and log what was committed: a line for each delivery and each transition."""
    delivered = [
        {
            "event": "delivery.recorded",
            "event_id": report.delivery.event_id,
            "generation_id": report.generation_id,
            "outcome": "duplicate" if item.is_duplicate else item.outcome,
        }
        for report, item in zip(reports, recorded, strict=True)
        if report.delivery is not None
    ]
    moved = [_line(item.transition, item) for item in recorded if item.transition is not None]
    for outcome, count in Tally(line["outcome"] for line in delivered).items():
        DELIVERIES.labels(outcome).inc(count)
    steps = Tally((line["from_status"], line["to_status"], line["source"]) for line in moved)
    for (from_status, to_status, source), count in steps.items():
        TRANSITIONS.labels(from_status or "none", to_status, source).inc(count)
    CALLBACKS_MISSED.inc(sum(line["missed_callback"] is True for line in moved))
    info_each(log, [*delivered, *moved])


def _line(transition: Transition, item: Recorded) -> dict[str, object]:
    return {
        "event": "generation.settled" if transition.to_status.is_terminal else "generation.moved",
        "generation_id": transition.generation_id,
        "number": transition.number,
        "from_status": transition.from_status,
        "to_status": transition.to_status,
        "source": transition.source,
        "missed_callback": item.missed_callback,
    }
