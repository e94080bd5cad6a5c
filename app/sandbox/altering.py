"""Alters an answer that was true: what a client has to bear from a Rivya that changes, or that breaks in the midst."""

from typing import Any, Literal, get_args

import orjson
from starlette.responses import Response

Alteration = Literal["truncated", "not_utf8", "wrong_type", "unknown_members", "nulls", "huge_numbers"]
ALTERATIONS: tuple[Alteration, ...] = get_args(Alteration)
HUGE = b"1" + b"0" * 40


def altered(response: Response, how: Alteration) -> Response:
    """The same status with its body altered; `wrong_type` leaves the body and calls it HTML."""
    body, kind = bytes(response.body), "text/html" if how == "wrong_type" else "application/json"
    return Response(_altered(body, how), response.status_code, media_type=kind)


def _altered(body: bytes, how: Alteration) -> bytes:
    match how:
        case "truncated":
            return body[: len(body) // 2]
        case "not_utf8":
            return body[:1] + b'"\xff\xfe": 1, ' + body[1:]
        case "unknown_members":
            return _with_members(body, {"unheard_of": {"deep": [None, {"x": "\ufffd"}]}})
        case "nulls":
            return orjson.dumps(_nulled(orjson.loads(body or b"null")))
        case "huge_numbers":
            return body[:1] + b'"huge": ' + HUGE + b", " + body[1:]
        case "wrong_type":
            return body


def _with_members(body: bytes, members: dict[str, Any]) -> bytes:
    content = orjson.loads(body or b"null")
    return orjson.dumps({**content, **members}) if isinstance(content, dict) else body


def _nulled(content: object) -> object:
    return dict.fromkeys(content) if isinstance(content, dict) else None
