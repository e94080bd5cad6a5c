"""What many modules share: JSON, ids, header values."""

import json
import secrets
import uuid
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import orjson

_TO_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG: Final = b"0" * 19  # the digits of 2^63


def parse_json(text: bytes | str) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a JSON text. Raises `orjson.JSONDecodeError`."""
    value = orjson.loads(text)
    if _LONG in (text.encode() if isinstance(text, str) else text).translate(_TO_ZEROS):
        with suppress(ValueError, RecursionError):  # Python reads integers of 4,300 digits at most
            return json.loads(text)
    return value


def json_object(text: bytes | str) -> dict[str, Any] | None:
    """The members of a JSON object, None if the text is anything else."""
    try:
        value = parse_json(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def dump_json(value: object) -> bytes:
    """`value` as JSON. Raises `TypeError`, `ValueError` or `RecursionError` for what JSON can't hold."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def json_body(content: object) -> bytes:
    """`content` as JSON and a newline, so that in a terminal the next prompt begins on a new line."""
    return dump_json(content) + b"\n"


def uuid7(now: datetime) -> uuid.UUID:
    """A UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits.

    These ids sort by the time they were created.
    """
    milliseconds = int(now.timestamp() * 1000) & ((1 << 48) - 1)
    return uuid.UUID(
        int=milliseconds << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    )


def uuid7_beginning(now: datetime) -> str:
    """What every `uuid7` of this millisecond begins with: lists by id are cut there to a time."""
    milliseconds = max(int(now.timestamp() * 1000), 0)
    return f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}"


def request_id() -> str:
    """A fresh id for one HTTP request, in Rivya's format (`req_` and 24 hex digits)."""
    return f"req_{secrets.token_hex(12)}"


def path_key() -> str:
    """192 random bits for a secret callback path, as hex, so that a change of case loses nothing."""
    return secrets.token_hex(24)


def is_header_value(text: str) -> bool:
    """Whether a header carries `text` unchanged: printable ASCII, not empty, without spaces at its ends."""
    return bool(text) and text.isascii() and text.isprintable() and text == text.strip()
