"""How a call fails, in the words that a person and a program are told."""

from typing import Any

import orjson


class CallFailed(Exception):
    """No success; `document` is the error in Rivya's shape, as it came or made here where nothing came."""

    def __init__(self, message: str, document: dict[str, Any], *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.document = document
        self.retry_after = retry_after
        """Seconds that the receiver asked to wait."""
        self.status: int | None = None
        """The HTTP status; None where no answer came."""

    @property
    def may_pass(self) -> bool:
        """It is worth asking again: nobody answered, or not now."""
        return self.status is None or self.status == 429 or self.status >= 500


def unanswered(code: str, message: str) -> CallFailed:
    """A failure for which there is no answer to show."""
    return CallFailed(message, {"error": {"code": code, "message": message, "requestId": None}})


def refused(status: int, body: bytes, *, retry_after: str | None) -> CallFailed:
    """What an answer other than 2xx says."""
    error = _error_of(body)
    if error is None:
        failure = unanswered("unexpected_answer", f"HTTP {status}, and not a word why")
    else:
        told = f"{error['code']}: {error.get('message') or 'no message'}"
        request_id = error.get("requestId")
        failure = CallFailed(f"{told} (HTTP {status}, request {request_id})", {"error": error})
    failure.status = status
    failure.retry_after = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    return failure


def _error_of(body: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) and isinstance(error.get("code"), str) else None
