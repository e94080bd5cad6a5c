"""Sends submissions to Rivya: one attempt each under the submission's own key, and retries in the background.

Counts and logs the results: ids and Rivya's request id, never bodies or keys.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter

from app.core.clock import Clock
from app.core.errors import DatabaseUnavailable, ServiceError
from app.core.middleware import trace_fields
from app.core.records import request_id
from app.core.waiters import Waiters, run_unless
from app.ledger.models import Report, Source
from app.ledger.write_queue import WriteQueue
from app.ratelimit.limiter import RateLimiter
from app.rivya.client import CreateAnswer, RivyaClient
from app.rivya.errors import RivyaError, RivyaUnavailable
from app.submission.models import Reply, State, Submission, read_create, unknown
from app.submission.outcome import (
    UNRESOLVED_AFTER,
    Accepted,
    Attempt,
    NotRecorded,
    Outcome,
    classify,
    pause_before_retry,
)
from app.submission.store import SubmissionRepository

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


Jitter = Callable[[], float]
"""Returns a number from -1 to 1."""


def any_jitter() -> float:
    """A random number from -1 to 1."""
    return random.uniform(-1, 1)  # noqa: S311 - spreads load, guards nothing


@dataclass(frozen=True, slots=True)
class Sent:
    """The result of an attempt; `error` is that of the request to Rivya, if it failed."""

    reply: Reply
    error: RivyaError | None


class Sender:
    """Sends a claimed submission, records the generation that Rivya created, and stores the outcome."""

    def __init__(
        self,
        client: RivyaClient,
        batch: WriteQueue,
        submissions: SubmissionRepository,
        clock: Clock,
        *,
        waiters: Waiters,
        jitter: Jitter = any_jitter,
    ) -> None:
        self._client = client
        self._batch = batch
        self._submissions = submissions
        self._clock = clock
        self._waiters = waiters
        self._jitter = jitter
        self._is_aborted = asyncio.Event()

    def abort_pending(self) -> None:
        """Stop waiting for responses, because the process ends: running attempts count as unanswered."""
        self._is_aborted.set()

    async def send(self, claimed: Submission, *, in_doubt: bool) -> Sent:
        """Make one attempt. `in_doubt`: an earlier one may have taken effect, as always in the background.

        If the database is away, the submission stays claimed; when its lease expires, the background retries it.
        """
        attempt = await self._attempt(claimed)
        current_request_id = request_id()
        outcome = classify(attempt, key=claimed.key, request_id=current_request_id, in_doubt=in_doubt)
        try:
            is_current = await self._conclude(claimed, outcome)
        except DatabaseUnavailable as error:
            lost = NotRecorded(type(error).__name__)
            outcome = classify(lost, key=claimed.key, request_id=current_request_id, in_doubt=in_doubt)
            is_current = True
        self._waiters.wake(claimed.id)
        if in_doubt:
            log_retried(claimed, outcome, age=self._clock.now() - claimed.sent_at)
        else:
            log_sent(claimed, outcome, request_id=current_request_id)
        reply = outcome.reply if is_current else await self._stored_reply(claimed, current_request_id)
        return Sent(reply, attempt if isinstance(attempt, RivyaError) else None)

    async def _attempt(self, claimed: Submission) -> Attempt:
        try:
            answer = await self._ask(claimed)
        except RivyaError as error:
            return error
        try:
            recorded = await self._batch.record(_report(claimed, answer, self._clock.now()))
        except ServiceError as error:
            return NotRecorded(f"{type(error).__name__} for generation {answer.generation.id}")
        return Accepted(answer.status, answer.generation.id, answer.body, recorded.generation)

    async def _ask(self, claimed: Submission) -> CreateAnswer:
        """Rivya's answer. Raises `RivyaError`; `RivyaUnavailable` as soon as `abort_pending` is called."""
        body = read_create(claimed.request).sent
        call = self._client.create_generation(body, idempotency_key=claimed.key, traceparent=claimed.traceparent)
        unanswered = RivyaUnavailable("no answer before the process had to stop", sent=True)
        return await run_unless(self._is_aborted.wait(), call, error=unanswered)

    async def _conclude(self, claimed: Submission, outcome: Outcome) -> bool:
        now = self._clock.now()
        pause = pause_before_retry(
            claimed.retries, now - claimed.sent_at, jitter=self._jitter(), retry_after=outcome.retry_after
        )
        return await self._submissions.conclude(claimed, outcome, now=now, next_attempt_at=now + pause)

    async def _stored_reply(self, claimed: Submission, current_request_id: str) -> Reply:
        """The reply that a later attempt stored: this attempt was slow, and the background has retried."""
        stored = await self._submissions.find(claimed.id)
        return stored.reply or unknown(claimed.key, request_id=current_request_id)


def _report(claimed: Submission, answer: CreateAnswer, now: datetime) -> Report:
    create = read_create(claimed.request)
    return Report(
        source=Source.SUBMIT,
        reported_at=now,
        claim=answer.generation,
        client_request_id=create.client_request_id,
        metadata=create.metadata,
        token=claimed.submitted_by,
    )


_AT_ONCE = 10
_SECONDS_WHILE_BUSY = 0.25
_SECONDS_WHILE_IDLE = 1.0


class Retrier:
    """Retries unanswered submissions under the same key. `run_once` is one run of a loop; any replica may run it."""

    def __init__(self, submissions: SubmissionRepository, sender: Sender, limiter: RateLimiter, clock: Clock) -> None:
        self._submissions = submissions
        self._sender = sender
        self._limiter = limiter
        self._clock = clock

    async def run_once(self) -> float:
        """Retry what is due, within the budget; returns the seconds until the next run."""
        claimed = await self._claim()
        results = await asyncio.gather(*map(self._send, claimed), return_exceptions=True)
        for error in filter(None, results):  # only after all are done: no task is left behind
            raise error
        return _SECONDS_WHILE_BUSY if claimed else _SECONDS_WHILE_IDLE

    async def _claim(self) -> list[Submission]:
        claimed: list[Submission] = []
        while len(claimed) < _AT_ONCE and await self._submissions.is_due(now=self._clock.now()):
            if not await self._limiter.acquire():
                break
            submission = await self._submissions.claim_due(now=self._clock.now())
            if submission is None:  # another replica was faster
                break
            claimed.append(submission)
        return claimed

    async def _send(self, submission: Submission) -> None:
        sent = await self._sender.send(submission, in_doubt=True)
        if sent.error is not None:
            await self._limiter.record_error(sent.error)
        else:
            await self._limiter.record_success()
