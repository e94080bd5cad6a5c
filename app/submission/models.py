"""Creates, submissions and replies: the types of submission, and the checks of a create."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson
from sqlalchemy import RowMapping

from app.core.errors import RequestInvalid
from app.core.records import dump_json, is_header_value, json_body, parse_json
from app.rivya.payloads import LONGEST_REFERENCE, checked_metadata, usable_reference

# Checks only what this service needs of the body and the key of a create; Rivya checks the rest. Pure.

MOST_BYTES = 1024 * 1024
LONGEST_KEY = 255


@dataclass(frozen=True, slots=True)
class Create:
    """A create: the caller's body, and what of it is sent to Rivya."""

    body: bytes = field(repr=False)
    digest: str
    """SHA-256 of the body and the callback's URL, if there is one; hex."""
    client_request_id: str | None
    model: str
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    """Stored with the generation, and not sent: Rivya has no such member."""
    sent: bytes = field(default=b"", repr=False)
    """The body without `metadata`; unchanged if it has none."""
    traceparent: str | None = None
    """Of the caller's request; goes on to Rivya."""
    callback_url: str | None = field(default=None, repr=False)
    """Called with the outcome; not sent to Rivya."""


def read_create(body: bytes, *, callback_url: str | None = None) -> Create:
    """The create with this body. Raises `RequestInvalid` with the reason."""
    try:
        members = parse_json(body)
    except orjson.JSONDecodeError:
        raise RequestInvalid("The body must be a JSON object; it is not JSON.") from None
    if not isinstance(members, dict):
        raise RequestInvalid("The body must be a JSON object.")
    model = members.get("model")
    if not isinstance(model, str) or not model.strip():
        raise RequestInvalid("model is required and must be a non-empty string.")
    reference = members.get("client_request_id")
    if reference is not None and usable_reference(reference) is None:
        message = f"client_request_id must be a string of 1 to {LONGEST_REFERENCE} characters without NUL."
        raise RequestInvalid(message)
    metadata, sent = members.get("metadata"), body
    if "metadata" in members:
        sent = dump_json({name: value for name, value in members.items() if name != "metadata"})
        metadata = _checked_metadata(metadata)
    compared = body if callback_url is None else b"%b\0%b" % (body, callback_url.encode())  # JSON has no NUL
    digest = hashlib.sha256(compared).hexdigest()
    return Create(body, digest, reference, model, metadata, sent, callback_url=callback_url)


def _checked_metadata(value: object) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise RequestInvalid("metadata must be a JSON object.")
    try:
        return checked_metadata(value)
    except ValueError as error:
        message = f"metadata {error}."
        raise RequestInvalid(message) from None


def read_key(values: Sequence[str]) -> str | None:
    """The caller's `Idempotency-Key`, None without one. Raises `RequestInvalid`."""
    if not values:
        return None
    key = values[0]
    if len(values) > 1 or len(key) > LONGEST_KEY or not is_header_value(key):
        raise RequestInvalid(f"Idempotency-Key must be one value of 1 to {LONGEST_KEY} printable ASCII characters.")
    return key


def read_callback_url(values: Sequence[str]) -> str | None:
    """The caller's `Receiver-Callback-Url`, None without one. Raises `RequestInvalid`."""
    if not values:
        return None
    if len(values) > 1 or not is_header_value(values[0]):
        raise RequestInvalid("Receiver-Callback-Url must be one URL in ASCII.")
    return values[0]


# The states of a submission: sending → accepted | rejected | unknown; an unknown one is resolved later.


class State(StrEnum):
    """The state of a submission."""

    SENDING = "sending"
    """Stored and being sent, or interrupted while it was sent."""
    ACCEPTED = "accepted"
    """Rivya created a generation."""
    REJECTED = "rejected"
    """Rivya rejected it, or it certainly never reached Rivya."""
    UNKNOWN = "unknown"
    """It was sent and no answer came: it is retried with the same key until one comes."""


# Replies to callers: a status and a body, always in Rivya's format.


UNREACHABLE_RETRY_AFTER = 5
NOT_RECORDED_RETRY_AFTER = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A reply to a caller; `retry_after` is in whole seconds."""

    status: int
    body: bytes
    retry_after: int | None = None
    is_replay: bool = False
    """The same submission got this reply before."""


def error_reply(status: int, code: str, message: str, *, request_id: str, retry_after: float | None = None) -> Reply:
    """An error reply in Rivya's format; `retry_after` is in seconds."""
    body = json_body({"error": {"code": code, "message": message, "requestId": request_id}})
    return Reply(status=status, body=body, retry_after=whole_seconds(retry_after))


def unknown(key: str, *, request_id: str) -> Reply:
    """504: the create was sent and no usable answer came."""
    message = (
        "Rivya gave no usable answer in time, so what became of this create is unknown. It is being resolved in the "
        f"background. Repeating it with the same Idempotency-Key ({key}) is safe; with another key it may be paid "
        "twice."
    )
    return error_reply(504, "submission_unknown", message, request_id=request_id)


def not_recorded(key: str, *, request_id: str) -> Reply:
    """503: Rivya answered, but its answer could not be stored."""
    message = (
        "Rivya answered, but its answer could not be written down. It is being resolved in the background. "
        f"Repeat the create with the same Idempotency-Key ({key}); with another key it may be paid twice."
    )
    return error_reply(503, "not_recorded", message, request_id=request_id, retry_after=NOT_RECORDED_RETRY_AFTER)


def unreachable(*, request_id: str, retry_after: float | None = None) -> Reply:
    """503: the create certainly never reached Rivya."""
    message = (
        "Rivya can't be reached at the moment, and nothing was sent. Repeat the create with the same Idempotency-Key."
    )
    seconds = max(retry_after or 0, UNREACHABLE_RETRY_AFTER)
    return error_reply(503, "rivya_unreachable", message, request_id=request_id, retry_after=seconds)


def conflict(*, request_id: str) -> Reply:
    """409: the key was used with another body."""
    message = "This Idempotency-Key was used with another body."
    return error_reply(409, "idempotency_conflict", message, request_id=request_id)


def expired(generation_id: str | None, *, request_id: str) -> Reply:
    """410: the key was used before, and its reply is no longer stored."""
    what = "Rivya refused that create." if generation_id is None else f"It made the generation {generation_id}."
    message = f"This Idempotency-Key was used before, and its answer is no longer kept. {what} Nothing was sent now."
    return error_reply(410, "idempotency_key_expired", message, request_id=request_id)


def database_unavailable(key: str, *, request_id: str) -> Reply:
    """503: the create could not be stored or read. It may be committed nevertheless."""
    message = (
        "The database can't be reached at the moment. "
        f"Repeat the create with the same Idempotency-Key ({key}); with another key it may be paid twice."
    )
    return error_reply(503, "database_unavailable", message, request_id=request_id, retry_after=5)


def whole_seconds(seconds: float | None) -> int | None:
    """Seconds for `Retry-After`, rounded up; None for None."""
    return None if seconds is None else math.ceil(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A row of `submissions`, immutable in memory.

    `attempts` is the number of the current attempt; `retries` counts background retries since a caller last sent it.
    """

    id: str
    key: str = field(repr=False)
    request_hash: str
    request: bytes = field(repr=False)
    submitted_by: str | None
    """Name of the token that last sent it."""
    callback_url: str | None = field(repr=False)
    state: State
    is_final: bool
    attempts: int
    retries: int
    sent_at: datetime
    generation_id: str | None
    """The id of the generation that Rivya created."""
    reply: Reply | None = field(repr=False)
    """The stored reply; None while the outcome is unknown, and where the reply is no longer stored."""
    traceparent: str | None
    """Of the request of the caller that last sent it."""
    is_emptied: bool
    """It was answered, and its bodies were emptied later because of their age or by an operator."""


def from_row(row: RowMapping) -> Submission:
    """The submission in a row of `submissions`."""
    return Submission(
        id=row["id"],
        key=row["idempotency_key"],
        request_hash=row["request_hash"],
        request=row["request"],
        submitted_by=row["submitted_by"],
        callback_url=row["callback_url"],
        state=State(row["state"]),
        is_final=bool(row["is_final"]),
        attempts=row["attempts"],
        retries=row["retries"],
        sent_at=row["sent_at"],
        generation_id=row["generation_id"],
        traceparent=row["traceparent"],
        reply=_reply(row),
        is_emptied=row["response_status"] is not None and row["response"] is None,
    )


def _reply(row: RowMapping) -> Reply | None:
    if row["response"] is None:
        return None
    return Reply(
        status=row["response_status"], body=row["response"], retry_after=row["response_retry_after"], is_replay=True
    )
