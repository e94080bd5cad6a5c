"""Answers as they leave the sandbox: JSON, refusals in the documented shape, and no answer at all."""

import socket
import struct
from typing import Any, Literal

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.sandbox.clock import new_id

TRANSPORT = "sandbox.transport"
"""The ASGI extension by which the server lends out a connection's transport."""


def json_answer(content: object, *, status: int = 200) -> Response:
    """A JSON body."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def refusal(code: str, message: str, *, status: int) -> Response:
    """The documented error body with a fresh request id."""
    return json_answer(error_body(code, message, new_id("req")), status=status)


class NoAnswer(Response):
    """Closes the connection without a word: politely, or with a reset."""

    def __init__(self, manner: Literal["reset", "hang_up"]) -> None:
        super().__init__()
        self._manner = manner

    async def __call__(self, scope: Scope, receive: Receive, _: Send) -> None:
        """End the connection, wait until the server noticed; raises ConnectionResetError where there is no server."""
        transport: Any = scope.get("extensions", {}).get(TRANSPORT)
        if transport is None:
            raise ConnectionResetError("The sandbox hung up.")
        if self._manner == "reset":
            # A linger time of zero makes the kernel answer with RST instead of FIN.
            no_linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        transport.abort()
        while (await receive())["type"] != "http.disconnect":
            pass


# Request bodies: a JSON object, or a refusal.


async def json_object(request: Request) -> dict[str, Any]:
    """The JSON object sent; raises `validation_failed`."""
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise invalid("The body must be JSON.") from None
    if not isinstance(body, dict):
        raise invalid("The body must be a JSON object.")
    return body


# What Rivya answers when it refuses: a code, a message and a request id, in one documented shape.


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
