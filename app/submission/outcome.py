"""What an attempt to send a submission means for it, and for the caller; pure."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import orjson

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
from app.rivya.parsing import storable
from app.submission.models import Reply, State, not_recorded, refusal, unknown, unreachable, whole_seconds


class Result(StrEnum):
    """What became of a create, as it is counted."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    RETRYABLE = "retryable"
    """Rivya said "not now"."""
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"
    NOT_RECORDED = "not_recorded"


@dataclass(frozen=True, slots=True)
class Accepted:
    """Rivya made a generation of it, and the ledger has it."""

    status: int
    """Rivya's HTTP status."""
    generation_id: str
    body: bytes
    """As Rivya sent it."""
    generation: Generation | None
    """As it stands in the ledger."""


@dataclass(frozen=True, slots=True)
class NotRecorded:
    """Rivya made a generation of it, and the ledger could not take it."""

    reason: str


Attempt = Accepted | NotRecorded | RivyaError


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The submission's next state and the caller's answer."""

    result: Result
    state: State
    reply: Reply
    is_final: bool = False
    generation_id: str | None = None
    error: str | None = None
    """For the operator; no body, no key."""
    rivya_request_id: str | None = None
    retry_after: float | None = None
    """Seconds that Rivya asked to wait."""


def judge(attempt: Attempt, *, key: str, request_id: str, in_doubt: bool) -> Verdict:
    """Decide what follows from an attempt.

    `in_doubt` tells that an earlier attempt may have taken effect: then only Rivya's word on this very request settles
    it, not that Rivya is busy, away, or refuses the key we call with. `request_id` names errors of our own making.
    """
    if isinstance(attempt, Accepted):
        return _accepted(attempt)
    if isinstance(attempt, NotRecorded):
        reply = not_recorded(key, request_id=request_id)
        return Verdict(result=Result.NOT_RECORDED, state=State.UNKNOWN, reply=reply, error=attempt.reason)
    if isinstance(attempt, RivyaRefused) and not (in_doubt and _leaves_outcome_open(attempt)):
        return _refused(attempt, request_id)
    if isinstance(attempt, RivyaUnavailable) and not in_doubt:
        if not attempt.sent:
            return _unreachable(attempt, request_id)
        if attempt.status is not None and _is_a_clear_no(attempt.status, attempt.code):
            return _failed(attempt, attempt.status, attempt.code or "rivya_refused", request_id=request_id)
    return _unknown(attempt, key, request_id)


def _is_a_clear_no(status: int, code: str | None) -> bool:
    """Nothing was made of the create: a 5xx in Rivya's own words, or any 4xx but those that speak of a time-out."""
    return (status >= 500 and code is not None) or (400 <= status < 500 and status not in (408, 425))


def _accepted(attempt: Accepted) -> Verdict:
    body = orjson.dumps(render(attempt.generation)) if attempt.generation is not None else attempt.body
    return Verdict(
        result=Result.ACCEPTED,
        state=State.ACCEPTED,
        reply=Reply(status=attempt.status, body=body),
        is_final=True,
        generation_id=attempt.generation_id,
    )


def _leaves_outcome_open(error: RivyaRefused) -> bool:
    """It does not tell whether an earlier attempt took effect; a conflict even hints that it did, or still may."""
    return (
        isinstance(error, RivyaUnauthorized | RivyaForbidden | RivyaRateLimited) or error.code == "idempotency_conflict"
    )


def _refused(error: RivyaRefused, request_id: str) -> Verdict:
    # What Rivya says of its own load, or of the key that we call with, says nothing of the caller's request.
    is_final = not isinstance(error, RivyaRateLimited | RivyaUnauthorized | RivyaForbidden)
    return Verdict(
        result=Result.REJECTED if is_final else Result.RETRYABLE,
        state=State.REJECTED,
        reply=relayed(error, request_id=request_id),
        is_final=is_final,
        error=str(error),
        rivya_request_id=error.request_id,
        retry_after=error.retry_after,
    )


def _failed(error: RivyaUnavailable, status: int, code: str, *, request_id: str) -> Verdict:
    named = error.request_id or request_id
    message = error.message or "Rivya failed to take this create. Repeat it with the same Idempotency-Key."
    return Verdict(
        result=Result.RETRYABLE,
        state=State.REJECTED,
        reply=refusal(status, code, message, request_id=named, retry_after=error.retry_after),
        error=str(error),
        rivya_request_id=error.request_id,
        retry_after=error.retry_after,
    )


def _unreachable(error: RivyaUnavailable, request_id: str) -> Verdict:
    reply = unreachable(request_id=request_id, retry_after=error.retry_after)
    return Verdict(result=Result.UNREACHABLE, state=State.REJECTED, reply=reply, error=str(error))


def _unknown(error: RivyaError, key: str, request_id: str) -> Verdict:
    return Verdict(
        result=Result.UNKNOWN,
        state=State.UNKNOWN,
        reply=unknown(key, request_id=request_id),
        error=str(error),
        rivya_request_id=error.request_id,
        retry_after=error.retry_after,
    )


# Rivya's refusal as a caller gets it: with all its members, completed to the documented three; pure.


_LARGEST_RELAYED = 64 * 1024


def relayed(error: RivyaRefused, *, request_id: str) -> Reply:
    """Rivya's status, code, message, requestId and wait; `request_id` is ours, for where Rivya named none."""
    members = _error_member(error.body) if len(error.body) <= _LARGEST_RELAYED else {}
    documented = {
        "message": error.message or "Rivya refused this without giving a reason.",
        "requestId": error.request_id or request_id,
    }
    body = orjson.dumps({"error": {**documented, **members, "code": error.code}})
    return Reply(status=error.status, body=body, retry_after=whole_seconds(error.retry_after))


def _error_member(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = value.get("error") if isinstance(value, dict) else None
    return storable(error) if isinstance(error, dict) else {}


# When a submission of unknown outcome is sent again: 5 seconds, doubling to 10 minutes, hourly after a day; pure.


FIRST = timedelta(seconds=5)
LONGEST = timedelta(minutes=10)
UNRESOLVED_AFTER = timedelta(hours=24)
UNRESOLVED_INTERVAL = timedelta(hours=1)

_SPREAD = 0.2
_MOST_DOUBLINGS = 7  # 5 seconds, seven times doubled, is past the longest


def pause_before_retry(retries: int, age: timedelta, *, jitter: float, retry_after: float | None = None) -> timedelta:
    """How long to wait after so many `retries` of a submission sent `age` ago.

    `jitter` from -1 to 1 moves the pause by up to a fifth; `retry_after` is the fewest seconds asked for.
    """
    growing = min(FIRST * 2 ** min(retries, _MOST_DOUBLINGS), LONGEST)
    pause = (UNRESOLVED_INTERVAL if age >= UNRESOLVED_AFTER else growing) * (1 + _SPREAD * jitter)
    return max(pause, timedelta(seconds=retry_after or 0))
