"""Metrics and log events of submission: ids, Rivya's request id and results; never bodies or keys."""

from datetime import timedelta

import structlog
from prometheus_client import Counter

from app.core.middleware import trace_fields
from app.submission.models import State, Submission
from app.submission.outcome import UNRESOLVED_AFTER, Outcome

SUBMISSIONS = Counter("receiver_submissions", "Creates, by what became of them.", ["result"])

_SENT = {
    State.ACCEPTED: "submission.accepted",
    State.REJECTED: "submission.rejected",
    State.UNKNOWN: "submission.unknown",
}

log = structlog.stdlib.get_logger(__name__)


def log_sent(submission: Submission, outcome: Outcome, *, request_id: str) -> None:
    """Count and log that a caller's create was sent."""
    SUBMISSIONS.labels(outcome.result).inc()
    write = log.info if outcome.state is State.ACCEPTED else log.warning
    write(_SENT[outcome.state], **_fields(submission, outcome), error_request_id=request_id)


def log_retried(submission: Submission, outcome: Outcome, *, age: timedelta) -> None:
    """Log a retry by the background, and count it if it settled the submission."""
    if outcome.state is not State.UNKNOWN:
        SUBMISSIONS.labels("resolved").inc()
        log.info("submission.resolved", **_fields(submission, outcome), state=outcome.state)
    elif age >= UNRESOLVED_AFTER:
        log.error("submission.unresolved", **_fields(submission, outcome), hours=round(age.total_seconds() / 3600))
    else:
        log.warning("submission.unknown", **_fields(submission, outcome))


def log_answered(submission: Submission, result: str) -> None:
    """Count and log a create answered without sending it: `replayed`, `expired`, `conflict` or `waited`."""
    SUBMISSIONS.labels(result).inc()
    log.info("submission.answered", submission_id=submission.id, result=result)


def log_rejected(reason: str) -> None:
    """Count and log a create that was rejected without an attempt."""
    SUBMISSIONS.labels(reason).inc()
    log.warning("submission.turned_away", reason=reason)


def _fields(submission: Submission, outcome: Outcome) -> dict[str, object]:
    return {
        "submission_id": submission.id,
        "generation_id": outcome.generation_id,
        "attempt": submission.attempts,
        "result": outcome.result,
        "error": outcome.error,
        "rivya_request_id": outcome.rivya_request_id,
        **trace_fields(submission.traceparent),
    }
