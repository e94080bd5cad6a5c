"""How a completion is told as server-sent events: Rivya's own way is not documented, so there are several."""

from typing import Any, Literal

import orjson

Dialect = Literal["named", "chunks", "crlf"]
"""`named`: events with names; `chunks`: deltas and a closing `[DONE]`; `crlf`: ids, several data lines, `\\r\\n`."""
HEARTBEAT = b": heartbeat\n\n"


def tell(completion: dict[str, Any], dialect: Dialect) -> list[bytes]:
    """The events of a stream, in order; the last one ends the turn."""
    words = completion["message"]["content"].split(" ")
    pieces = [word if index == 0 else f" {word}" for index, word in enumerate(words)]
    match dialect:
        case "named":
            return _named(completion, pieces)
        case "chunks":
            return _chunks(completion, pieces)
        case "crlf":
            return _crlf(completion, pieces)


def _named(completion: dict[str, Any], pieces: list[str]) -> list[bytes]:
    head = {name: completion[name] for name in ("id", "session_id", "model", "created_at")}
    deltas = [_event("message.delta", {"content": piece}) for piece in pieces]
    return [_event("message.created", head), *deltas, _event("message.completed", completion)]


def _chunks(completion: dict[str, Any], pieces: list[str]) -> list[bytes]:
    head = {"id": completion["id"], "object": "chat.completion.chunk", "session_id": completion["session_id"]}
    deltas = [_data({**head, "choices": [{"index": 0, "delta": {"content": piece}}]}) for piece in pieces]
    last = _data({**head, "choices": [], "usage": completion["usage"], "credits": completion["credits"]})
    return [*deltas, last, b"data: [DONE]\n\n"]


def _crlf(completion: dict[str, Any], pieces: list[str]) -> list[bytes]:
    events = [b"retry: 3000\r\n\r\n"]
    for number, piece in enumerate(pieces, start=1):
        lines = [f"id: {number}".encode(), b'data: {"delta":', b"data: " + orjson.dumps(piece), b"data: }"]
        events.append(b"\r\n".join([*lines, b"", b""]))
    return [*events, b"event: done\r\ndata: " + orjson.dumps(completion) + b"\r\n\r\n"]


def _event(name: str, value: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\n" + _data(value)


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
