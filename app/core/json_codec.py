"""JSON with integers of any size: orjson, which alone turns those beyond 64 bits into floats."""

import json
from contextlib import suppress
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


def dump_json(value: object) -> bytes:
    """`value` as JSON. Raises `TypeError`, `ValueError` or `RecursionError` for what JSON can't hold."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def json_body(content: object) -> bytes:
    """`content` as JSON and a newline, so that in a terminal the next prompt begins on a new line."""
    return dump_json(content) + b"\n"
