"""What polling counts and logs, under constant names."""

from datetime import datetime

import structlog
from prometheus_client import Counter

from app.ledger.models import Tracking

POLLS = Counter("receiver_polls", "Polls, by what Rivya answered.", ["result"])
LOST = Counter("receiver_generations_lost", "Generations that Rivya no longer knows.")
STALLED = Counter("receiver_generations_stalled", "Generations still open past the horizon.")

log = structlog.stdlib.get_logger(__name__)


def note_failed(generation_id: str, *, error: str, request_id: str | None, in_a_row: int) -> None:
    """A poll brought nothing."""
    log.warning("poll.failed", generation_id=generation_id, error=error, rivya_request_id=request_id, in_a_row=in_a_row)


def note_turned(generation_id: str, tracking: Tracking) -> None:
    """A generation is from now on tracked otherwise."""
    if tracking is Tracking.LOST:
        LOST.inc()
        log.warning("generation.lost", generation_id=generation_id)
    if tracking is Tracking.STALLED:
        STALLED.inc()
        log.warning("generation.stalled", generation_id=generation_id)


def note_rate_limited(until: datetime | None, *, blocks: int) -> None:
    """All replicas pause."""
    log.warning("poll.rate_limited", until=until.isoformat() if until is not None else None, blocks=blocks)


def note_stopped(status: int, reason: str, *, request_id: str | None) -> None:
    """Rivya refuses our key: polling stops, but for a probe now and then."""
    log.error("poll.stopped", status=status, reason=reason, rivya_request_id=request_id)


def note_resumed() -> None:
    """Rivya takes our key again."""
    log.info("poll.resumed")


def note_recalled(count: int) -> None:
    """The clock was set back: polls that had been scheduled by the old one are due now."""
    log.warning("poll.recalled", count=count)
