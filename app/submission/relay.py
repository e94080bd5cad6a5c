"""Rivya's refusal as a caller gets it: with all its members, completed to the documented three; pure."""

from typing import Any

import orjson

from app.rivya.errors import RivyaRefused
from app.rivya.parsing import storable
from app.submission.reply import Reply, whole_seconds

_LARGEST_RELAYED = 64 * 1024


def relayed(error: RivyaRefused, *, request_id: str) -> Reply:
    """Rivya's status, code, message, requestId and wait; `request_id` is ours, for where Rivya named none."""
    told = _error_member(error.body) if len(error.body) <= _LARGEST_RELAYED else {}
    documented = {
        "message": error.message or "Rivya refused this without giving a reason.",
        "requestId": error.request_id or request_id,
    }
    body = orjson.dumps({"error": {**documented, **told, "code": error.code}})
    return Reply(status=error.status, body=body, retry_after=whole_seconds(error.retry_after))


def _error_member(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = value.get("error") if isinstance(value, dict) else None
    return storable(error) if isinstance(error, dict) else {}
