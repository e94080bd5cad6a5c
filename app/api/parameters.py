"""The query parameters of the lists; an unknown one is rejected, since ignoring it would list too much."""

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from starlette.convertors import StringConvertor, register_url_convertor

from app.core.audit import AuditFilter
from app.core.auth import Caller
from app.core.errors import RequestInvalid
from app.ledger.feed import MOST_EVENTS
from app.ledger.models import (
    DeliveryFilter,
    EventFilter,
    GenerationFilter,
    Item,
    Outcome,
    Page,
    Position,
    Status,
    Tracking,
)


class _GenerationId(StringConvertor):
    """An id in a path: with any characters, slashes too, but without the last segment of another route."""

    regex = ".*(?<!/transitions)(?<!/poll)"


register_url_convertor("generation", _GenerationId())

# A cursor holds the position and a digest of the filters. It comes from the caller, so every part is checked.

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
LONGEST = 2000
_LONGEST_ID = 500

Filter = GenerationFilter | DeliveryFilter


class CursorInvalid(RequestInvalid):
    """400: not a cursor of ours, or one for other filters."""

    message = "cursor: must be the next_cursor of an answer to the same filters, unchanged."


def encode(position: Position, chosen: Filter) -> str:
    """The cursor for the items after `position` in the list that `chosen` filters."""
    microseconds = (position.at - _EPOCH) // _MICROSECOND
    text = orjson.dumps([_digest(chosen), microseconds, position.id])
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def decode(cursor: str, chosen: Filter) -> Position:
    """The position that `cursor` names. Raises `CursorInvalid`."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        digest, microseconds, key = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        is_ours = digest == _digest(chosen) and type(microseconds) is int and _is_id(key)
        at = _EPOCH + microseconds * _MICROSECOND if is_ours else None
    except (ValueError, TypeError, OverflowError):
        raise CursorInvalid from None
    if at is None:
        raise CursorInvalid
    return Position(at, key)


def _is_id(key: object) -> bool:
    return isinstance(key, str) and 0 < len(key) <= _LONGEST_ID and "\x00" not in key


def _digest(chosen: Filter) -> str:
    text = orjson.dumps([type(chosen).__name__, chosen], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:16]


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NOT_A_TIME = "must be an RFC 3339 time with its offset, like 2026-05-10T00:00:00Z"


def _instant(value: object) -> datetime:
    # A "+" that was not percent-encoded arrives as a space.
    text = re.sub(r" (\d\d:\d\d)$", r"+\1", str(value).upper())
    if not _RFC3339.fullmatch(text):
        raise ValueError(_NOT_A_TIME)
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(_NOT_A_TIME) from None


def _edge(value: object) -> datetime:
    text = str(value)
    if _DAY.fullmatch(text):
        text = f"{text}T00:00:00Z"
    try:
        return _instant(text)
    except ValueError:
        message = f"must be a day like 2026-05-10, or {_NOT_A_TIME.removeprefix('must be ')}"
        raise ValueError(message) from None


def without_nul(value: str) -> str:
    """`value`. Raises `ValueError` if it contains NUL, which PostgreSQL does not store."""
    if "\x00" in value:
        message = "must not contain NUL"
        raise ValueError(message)
    return value


Instant = Annotated[datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})]
Edge = Annotated[
    datetime,
    BeforeValidator(_edge),
    WithJsonSchema({"anyOf": [{"type": "string", "format": form} for form in ("date", "date-time")]}),
]
Text = Annotated[str, AfterValidator(without_nul), Field(min_length=1, max_length=500)]


class _Page(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=200, description="How many at most.")
    cursor: str | None = Field(
        None, max_length=LONGEST, description="`next_cursor` of the answer before, with the same filters."
    )


class GenerationParameters(_Page):
    """Of GET /api/v1/generations."""

    status: Status | None = Field(None, description="Rivya's word.")
    tracking: Tracking | None = Field(None, description="What the receiver does about it.")
    model: Text | None = None
    client_request_id: Text | None = None
    submitted_by: Text | None = Field(None, description="Name of the token that submitted it.")
    created_after: Instant | None = Field(None, description="First heard of by the receiver at this time or later.")
    created_before: Instant | None = Field(None, description="First heard of by the receiver before this time.")

    @property
    def chosen(self) -> GenerationFilter:
        """The filter for the query."""
        return GenerationFilter(**self.model_dump(exclude={"limit", "cursor"}))


class EventType(StrEnum):
    """The types of the events of the feed."""

    QUEUED = "generation.queued"
    PROCESSING = "generation.processing"
    SUCCEEDED = "generation.succeeded"
    FAILED = "generation.failed"


class EventParameters(BaseModel):
    """Of GET /api/v1/events."""

    model_config = ConfigDict(extra="forbid")

    after: str | None = Field(
        None,
        max_length=LONGEST,
        description="`next_cursor` of a page, the `id` of an event, or `latest`; the oldest stored event if left out.",
    )
    limit: int = Field(200, ge=1, le=MOST_EVENTS, description="How many at most.")
    wait: float = Field(
        0, ge=0, description="Seconds to wait where there is no event yet, RECEIVER_MAX_WAIT (55) at most."
    )
    type: EventType | None = None
    generation_id: Text | None = None
    model: Text | None = None
    submitted_by: Text | None = Field(None, description="Name of the token that submitted the generation.")
    client_request_id: Text | None = None

    @property
    def chosen(self) -> EventFilter:
        """The filter for the query."""
        status = None if self.type is None else Status(self.type.removeprefix("generation."))
        return EventFilter(status=status, **self.model_dump(exclude={"after", "limit", "wait", "type"}))


class AuditParameters(_Page):
    """Of GET /api/v1/audit."""

    cursor: Text | None = Field(None, description="`next_cursor` of the answer before.")
    actor: Text | None = Field(None, description="Name of the token, or `command line`.")
    action: Text | None = None
    target: Text | None = None
    recorded_after: Instant | None = Field(None, description="Recorded at this time or later.")
    recorded_before: Instant | None = Field(None, description="Recorded before this time.")

    @property
    def chosen(self) -> AuditFilter:
        """The filter for the query."""
        return AuditFilter(**self.model_dump(exclude={"limit", "cursor"}))


class UsageParameters(BaseModel):
    """Of GET /api/v1/usage."""

    model_config = ConfigDict(extra="forbid")

    first: Edge | None = Field(
        None, alias="from", description="A day or a whole hour, in UTC; included. 30 days before `to` if left out."
    )
    to: Edge | None = Field(None, description="A day or a whole hour, in UTC; not included. Now if left out.")


class DeliveryParameters(_Page):
    """Of GET /api/v1/deliveries."""

    generation_id: Text | None = None
    outcome: Outcome | None = Field(None, description="What it did to the record.")
    event_type: Text | None = None
    received_after: Instant | None = Field(None, description="Received at this time or later.")
    received_before: Instant | None = Field(None, description="Received before this time.")

    @property
    def chosen(self) -> DeliveryFilter:
        """The filter for the query."""
        return DeliveryFilter(**self.model_dump(exclude={"limit", "cursor"}))


async def read_list(
    read: Callable[..., Awaitable[Page[Item]]], parameters: GenerationParameters | DeliveryParameters, caller: Caller
) -> tuple[Sequence[Item], str | None]:
    """A page of what the caller sees, newest first, and the cursor of the next one. `read`: a method of `Queries`."""
    chosen = replace(parameters.chosen, owner=caller.owner)
    after = decode(parameters.cursor, chosen) if parameters.cursor is not None else None
    page = await read(chosen, after=after, limit=parameters.limit)
    return page.items, encode(page.last, chosen) if page.last is not None else None
