"""Responses: JSON, errors in the documented shape, or a closed connection. And the reading of request bodies."""

import socket
import struct
from typing import Any, Literal, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.sandbox.clock import new_id

T = TypeVar("T")
TRANSPORT = "sandbox.transport"
"""The ASGI extension that holds the connection's transport."""
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
    """An error that is answered in Rivya's shape; without `status`, with the documented one of its code."""

    def __init__(self, code: str, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUS_OF_CODE[code] if status is None else status

    def response(self) -> Response:
        """The documented error body with a new request id."""
        error = {"code": self.code, "message": str(self), "requestId": new_id("req")}
        return json_response({"error": error}, status=self.status)


def invalid(message: str) -> RivyaError:
    """A `validation_failed` to raise."""
    return RivyaError("validation_failed", message)


def missing(what: str) -> RivyaError:
    """A `not_found` to raise, for what does not exist or belongs to another account."""
    return RivyaError("not_found", f"{what} not found.")


def json_response(content: object, *, status: int = 200) -> Response:
    """A JSON response."""
    return Response(orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE), status, media_type="application/json")


async def json_object(request: Request) -> dict[str, Any]:
    """The JSON object in the request's body. Raises `validation_failed`."""
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise invalid("The body must be JSON.") from None
    if not isinstance(body, dict):
        raise invalid("The body must be a JSON object.")
    return body


def validate(kind: type[T], members: object) -> T:
    """A `kind` with these members. Raises `validation_failed`, with the first member that is wrong."""
    try:
        return TypeAdapter(kind).validate_python(members)
    except ValidationError as failure:
        first = failure.errors()[0]
        raise invalid(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


class NoAnswer(Response):
    """Closes the connection without an answer: `hang_up` in order (FIN), `reset` with RST."""

    def __init__(self, manner: Literal["reset", "hang_up"]) -> None:
        super().__init__()
        self._manner = manner

    async def __call__(self, scope: Scope, receive: Receive, _: Send) -> None:
        """Close, and return when the server has noticed. Raises ConnectionResetError where there is no server."""
        transport: Any = scope.get("extensions", {}).get(TRANSPORT)
        if transport is None:
            raise ConnectionResetError("The sandbox closed the connection.")
        if self._manner == "reset":
            # With a linger time of zero the kernel sends RST instead of FIN.
            no_linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        transport.abort()
        await disconnected(receive)


async def disconnected(receive: Receive) -> None:
    """Return when the caller has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
