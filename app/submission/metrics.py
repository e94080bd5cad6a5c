"""What submission counts and logs: ids, Rivya's request id and results; never bodies, never keys."""

from datetime import timedelta

import structlog
from prometheus_client import Counter

from app.submission.models import State, Submission
from app.submission.outcome import UNRESOLVED_AFTER, Verdict

SUBMISSIONS = Counter("receiver_submissions", "Creates, by what became of them.", ["result"])

_SENT = {
    State.ACCEPTED: "submission.accepted",
    State.REJECTED: "submission.rejected",
    State.UNKNOWN: "submission.unknown",
}

log = structlog.stdlib.get_logger(__name__)


def note_sent(submission: Submission, verdict: Verdict, *, request_id: str) -> None:
    """A caller's create was sent."""
    SUBMISSIONS.labels(verdict.result).inc()
    say = log.info if verdict.state is State.ACCEPTED else log.warning
    say(_SENT[verdict.state], **_told(submission, verdict), error_request_id=request_id)


def note_retried(submission: Submission, verdict: Verdict, *, age: timedelta) -> None:
    """The background sent it again."""
    if verdict.state is not State.UNKNOWN:
        SUBMISSIONS.labels("resolved").inc()
        log.info("submission.resolved", **_told(submission, verdict), state=verdict.state)
    elif age >= UNRESOLVED_AFTER:
        log.error("submission.unresolved", **_told(submission, verdict), hours=round(age.total_seconds() / 3600))
    else:
        log.warning("submission.unknown", **_told(submission, verdict))


def note_answered(submission: Submission, how: str) -> None:
    """A caller's create was answered without sending it: `replayed`, `expired`, `conflict` or `waited`."""
    SUBMISSIONS.labels(how).inc()
    log.info("submission.answered", submission_id=submission.id, result=how)


def note_turned_away(why: str) -> None:
    """A caller's create was not even written down."""
    SUBMISSIONS.labels(why).inc()
    log.warning("submission.turned_away", reason=why)


def _told(submission: Submission, verdict: Verdict) -> dict[str, object]:
    return {
        "submission_id": submission.id,
        "generation_id": verdict.generation_id,
        "attempt": submission.attempts,
        "result": verdict.result,
        "error": verdict.error,
        "rivya_request_id": verdict.rivya_request_id,
    }
