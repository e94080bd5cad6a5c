"""What a caller is told: a status and the bytes of a body, in Rivya's shapes throughout."""

import math
from dataclasses import dataclass

import orjson

UNREACHABLE_RETRY_AFTER = 5
NOT_RECORDED_RETRY_AFTER = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer as it goes out; `retry_after` is in whole seconds."""

    status: int
    body: bytes
    retry_after: int | None = None
    is_replay: bool = False
    """The same submission was answered this way before."""


def refusal(status: int, code: str, message: str, *, request_id: str, retry_after: float | None = None) -> Reply:
    """An error in Rivya's shape."""
    body = orjson.dumps({"error": {"code": code, "message": message, "requestId": request_id}})
    return Reply(status=status, body=body, retry_after=whole_seconds(retry_after))


def unknown(key: str, *, request_id: str) -> Reply:
    """504: it was sent and no usable answer came."""
    message = (
        "Rivya gave no usable answer in time, so what became of this create is unknown. It is being resolved in the "
        f"background. Repeating it with the same Idempotency-Key ({key}) is safe; with another key it may be paid "
        "twice."
    )
    return refusal(504, "submission_unknown", message, request_id=request_id)


def not_recorded(key: str, *, request_id: str) -> Reply:
    """503: Rivya answered, and the answer could not be written down."""
    message = (
        "Rivya answered, but its answer could not be written down. It is being resolved in the background. "
        f"Repeat the create with the same Idempotency-Key ({key}); with another key it may be paid twice."
    )
    return refusal(503, "not_recorded", message, request_id=request_id, retry_after=NOT_RECORDED_RETRY_AFTER)


def unreachable(*, request_id: str, retry_after: float | None = None) -> Reply:
    """503: it certainly never reached Rivya."""
    message = (
        "Rivya can't be reached at the moment, and nothing was sent. Repeat the create with the same Idempotency-Key."
    )
    seconds = max(retry_after or 0, UNREACHABLE_RETRY_AFTER)
    return refusal(503, "rivya_unreachable", message, request_id=request_id, retry_after=seconds)


def conflict(*, request_id: str) -> Reply:
    """409: the key belongs to another body."""
    message = "This Idempotency-Key was used with another body."
    return refusal(409, "idempotency_conflict", message, request_id=request_id)


def expired(generation_id: str | None, *, request_id: str) -> Reply:
    """410: the key was answered before, and the answer is no longer kept."""
    what = "Rivya refused that create." if generation_id is None else f"It made the generation {generation_id}."
    message = f"This Idempotency-Key was used before, and its answer is no longer kept. {what} Nothing was sent now."
    return refusal(410, "idempotency_key_expired", message, request_id=request_id)


def database_unavailable(key: str, *, request_id: str) -> Reply:
    """503: it could not be written down, or not be looked up; the commit may stand all the same."""
    message = (
        "The database can't be reached at the moment. "
        f"Repeat the create with the same Idempotency-Key ({key}); with another key it may be paid twice."
    )
    return refusal(503, "database_unavailable", message, request_id=request_id, retry_after=5)


def whole_seconds(seconds: float | None) -> int | None:
    """As `Retry-After` takes it, rounded up."""
    return None if seconds is None else math.ceil(seconds)
