"""What Rivya answers when it refuses: a code, a message and a request id, in one documented shape."""

from typing import Any

STATUS_OF_CODE = {
    "public_api_disabled": 503,
    "api_key_missing": 401,
    "api_key_invalid": 401,
    "api_key_revoked": 401,
    "api_key_expired": 401,
    "api_scope_denied": 403,
    "rate_limited": 429,
    "validation_failed": 400,
    "not_found": 404,
    "webhook_url_rejected": 400,
    "idempotency_conflict": 409,
    "payload_too_large": 413,
    "chat_model_not_supported": 400,
    "chat_attachment_not_supported": 400,
    "chat_session_conflict": 409,
    "internal_error": 500,
}


class RivyaError(Exception):
    """A refusal on its way to the caller."""

    def __init__(self, code: str, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = STATUS_OF_CODE[code] if status is None else status


def error_body(code: str, message: str, request_id: str) -> dict[str, Any]:
    """The documented error object."""
    return {"error": {"code": code, "message": message, "requestId": request_id}}


def invalid(message: str) -> RivyaError:
    """The body can't be used; trying again does not help."""
    return RivyaError("validation_failed", message)


def missing(what: str) -> RivyaError:
    """There is no such thing, or it is another account's."""
    return RivyaError("not_found", f"{what} not found.")
