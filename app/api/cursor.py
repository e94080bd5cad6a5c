"""Opaque cursors: where a list goes on, and the digest of the filters it was asked with; nothing in one is trusted."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta

import orjson

from app.core.errors import ServiceError
from app.ledger.models import DeliveryFilter, GenerationFilter, Position

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
LONGEST = 2000
_LONGEST_ID = 500

Filter = GenerationFilter | DeliveryFilter


class CursorInvalid(ServiceError):
    """Not a cursor of ours, or one of another list."""

    status = 400
    code = "validation_failed"

    def __init__(self) -> None:
        super().__init__("cursor: must be the next_cursor of an answer to the same filters, unchanged.")


def encode(position: Position, chosen: Filter) -> str:
    """The cursor that goes on after `position` in the list that `chosen` filters."""
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
