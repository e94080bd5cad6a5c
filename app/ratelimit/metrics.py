"""What polling counts and logs, under constant names."""

from datetime import datetime

import structlog

log = structlog.stdlib.get_logger(__name__)


def note_rate_limited(until: datetime | None, *, blocks: int) -> None:
    """All replicas pause."""
    log.warning("poll.rate_limited", until=until.isoformat() if until is not None else None, blocks=blocks)


def note_stopped(status: int, reason: str, *, request_id: str | None) -> None:
    """Rivya refuses our key: polling stops, but for a probe now and then."""
    log.error("poll.stopped", status=status, reason=reason, rivya_request_id=request_id)


def note_resumed() -> None:
    """Rivya takes our key again."""
    log.info("poll.resumed")
