"""Metrics and log events of polling."""

import structlog
from prometheus_client import Counter

from app.ledger.models import Tracking

log = structlog.stdlib.get_logger(__name__)


POLLS = Counter("receiver_polls", "Polls, by what Rivya answered.", ["result"])
LOST = Counter("receiver_generations_lost", "Generations that Rivya no longer knows.")
STALLED = Counter("receiver_generations_stalled", "Generations still open past the horizon.")


def log_failed(generation_id: str, *, error: str, request_id: str | None, in_a_row: int) -> None:
    """Log a failed poll."""
    log.warning("poll.failed", generation_id=generation_id, error=error, rivya_request_id=request_id, in_a_row=in_a_row)


def log_tracking(generation_id: str, tracking: Tracking) -> None:
    """Count and log a generation that is now lost or stalled."""
    if tracking is Tracking.LOST:
        LOST.inc()
        log.warning("generation.lost", generation_id=generation_id)
    if tracking is Tracking.STALLED:
        STALLED.inc()
        log.warning("generation.stalled", generation_id=generation_id)
