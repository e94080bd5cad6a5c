"""Decides the next state of a submission and the reply to the caller after an attempt to send it. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from app.core.records import json_body, json_object
from app.ledger.models import Generation
from app.ledger.serializers import render
from app.rivya.errors import (
    RivyaError,
    RivyaForbidden,
    RivyaRateLimited,
    RivyaRefused,
    RivyaUnauthorized,
    RivyaUnavailable,
)
from app.rivya.payloads import storable
from app.submission.models import Reply, State, error_reply, not_recorded, unknown, unreachable, whole_seconds


class Result(StrEnum):
    """The result of a create, as it is counted."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    RETRYABLE = "retryable"
    """Rivya rejected it for now; the caller may repeat it."""
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"
    NOT_RECORDED = "not_recorded"


@dataclass(frozen=True, slots=True)
class Accepted:
    """Rivya created a generation, and the ledger has recorded it."""

    status: int
    """Rivya's HTTP status."""
    generation_id: str
    body: bytes
    """The body of Rivya's response."""
    generation: Generation | None
    """The generation in the ledger."""


@dataclass(frozen=True, slots=True)
class NotRecorded:
    """Rivya created a generation, and the ledger could not record it."""

    reason: str


Attempt = Accepted | NotRecorded | RivyaError


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The submission's next state and the reply to the caller."""

    result: Result
    state: State
    reply: Reply
    is_final: bool = False
    generation_id: str | None = None
    credits_reserved: float | None = None
    """By Rivya, where it says."""
    error: str | None = None
    """For the operator; no body, no key."""
    rivya_request_id: str | None = None
    retry_after: float | None = None
    """The wait that Rivya asked for, in seconds."""


def classify(attempt: Attempt, *, key: str, request_id: str, in_doubt: bool) -> Outcome:
    """The outcome of an attempt.

    `in_doubt`: an earlier attempt may have taken effect. Then only an answer about this very request is final. It is
    not if Rivya is busy, away, or rejects our API key. `request_id` is the id in errors of our own.
    """
    if isinstance(attempt, Accepted):
        return _accepted(attempt)
    if isinstance(attempt, NotRecorded):
        reply = not_recorded(key, request_id=request_id)
        return Outcome(result=Result.NOT_RECORDED, state=State.UNKNOWN, reply=reply, error=attempt.reason)
    if isinstance(attempt, RivyaRefused) and not (in_doubt and _leaves_outcome_open(attempt)):
        return _refused(attempt, request_id)
    if isinstance(attempt, RivyaUnavailable) and not in_doubt:
        if not attempt.sent:
            return _unreachable(attempt, request_id)
        if attempt.status in _REDIRECTS:
            attempt = RivyaUnavailable(
                str(attempt), sent=True, status=502, code="rivya_redirected", message=_REDIRECTED
            )
        if attempt.status is not None and _is_a_clear_no(attempt.status, attempt.code):
            return _failed(attempt, attempt.status, attempt.code or "rivya_refused", request_id=request_id)
    return _unknown(attempt, key, request_id)


_REDIRECTS = (301, 302, 307, 308)
"""They ask to send the create elsewhere, so Rivya created nothing here. 303 is the answer to one that took effect."""
_REDIRECTED = "RIVYA_BASE_URL redirects to another address, so nothing was made. The operator must correct it."


def _is_a_clear_no(status: int, code: str | None) -> bool:
    """Rivya created nothing: a 5xx with an error code of Rivya, or any 4xx except those about a time-out."""
    return (status >= 500 and code is not None) or (400 <= status < 500 and status not in (408, 425))


def _accepted(attempt: Accepted) -> Outcome:
    body = json_body(render(attempt.generation)) if attempt.generation is not None else attempt.body
    return Outcome(
        result=Result.ACCEPTED,
        state=State.ACCEPTED,
        reply=Reply(status=attempt.status, body=body),
        is_final=True,
        generation_id=attempt.generation_id,
        credits_reserved=None if attempt.generation is None else attempt.generation.reserved_credits,
    )


def _leaves_outcome_open(error: RivyaRefused) -> bool:
    """An earlier attempt may have taken effect despite this error; a conflict even suggests that it did or may."""
    return _is_about_the_account(error) or error.code == "idempotency_conflict"


def _is_about_the_account(error: RivyaRefused) -> bool:
    """Rivya's load, our API key or our credits: nothing that is wrong with the caller's request."""
    return (
        isinstance(error, RivyaUnauthorized | RivyaForbidden | RivyaRateLimited) or error.code == "insufficient_credits"
    )


def _refused(error: RivyaRefused, request_id: str) -> Outcome:
    is_final = not _is_about_the_account(error)
    return Outcome(
        result=Result.REJECTED if is_final else Result.RETRYABLE,
        state=State.REJECTED,
        reply=relayed(error, request_id=request_id),
        is_final=is_final,
        error=str(error),
        rivya_request_id=error.request_id,
        retry_after=error.retry_after,
    )


def _failed(error: RivyaUnavailable, status: int, code: str, *, request_id: str) -> Outcome:
    named = error.request_id or request_id
    message = error.message or "Rivya failed to take this create. Repeat it with the same Idempotency-Key."
    message = message[:_LONGEST_MESSAGE]
    return Outcome(
        result=Result.RETRYABLE,
        state=State.REJECTED,
        reply=error_reply(status, code, message, request_id=named, retry_after=error.retry_after),
        error=str(error),
        rivya_request_id=error.request_id,
        retry_after=error.retry_after,
    )


def _unreachable(error: RivyaUnavailable, request_id: str) -> Outcome:
    reply = unreachable(request_id=request_id, retry_after=error.retry_after)
    return Outcome(result=Result.UNREACHABLE, state=State.REJECTED, reply=reply, error=str(error))


def _unknown(error: RivyaError, key: str, request_id: str) -> Outcome:
    return Outcome(
        result=Result.UNKNOWN,
        state=State.UNKNOWN,
        reply=unknown(key, request_id=request_id),
        error=str(error),
        rivya_request_id=error.request_id,
        retry_after=error.retry_after,
    )


# Rivya's rejection as the caller gets it: with all its members, and the documented three in any case. Pure.


_LARGEST_RELAYED = 8 * 1024
_LONGEST_MESSAGE = 1000


def relayed(error: RivyaRefused, *, request_id: str) -> Reply:
    """The reply with Rivya's status, code, message, requestId and wait; `request_id` is used if Rivya gave none."""
    members = _error_member(error.body) if len(error.body) <= _LARGEST_RELAYED else {}
    documented = {
        "message": (error.message or "Rivya refused this without giving a reason.")[:_LONGEST_MESSAGE],
        "requestId": error.request_id or request_id,
    }
    body = json_body({"error": {**documented, **members, "code": error.code}})
    return Reply(status=error.status, body=body, retry_after=whole_seconds(error.retry_after))


def _error_member(body: bytes) -> dict[str, Any]:
    error = (json_object(body) or {}).get("error")
    return storable(error) if isinstance(error, dict) else {}


# When a submission of unknown outcome is sent again: after 5 seconds, doubling to 10 minutes; hourly after a day. Pure.


FIRST = timedelta(seconds=5)
LONGEST = timedelta(minutes=10)
UNRESOLVED_AFTER = timedelta(hours=24)
UNRESOLVED_INTERVAL = timedelta(hours=1)

_SPREAD = 0.2
_MOST_DOUBLINGS = 7  # 5 seconds, seven times doubled, is past the longest


def pause_before_retry(retries: int, age: timedelta, *, jitter: float, retry_after: float | None = None) -> timedelta:
    """How long to wait before the next retry, after so many `retries` of a submission sent `age` ago.

    `jitter` from -1 to 1 changes the pause by up to a fifth. The pause is at least `retry_after` seconds.
    """
    growing = min(FIRST * 2 ** min(retries, _MOST_DOUBLINGS), LONGEST)
    pause = (UNRESOLVED_INTERVAL if age >= UNRESOLVED_AFTER else growing) * (1 + _SPREAD * jitter)
    return max(pause, timedelta(seconds=retry_after or 0))
