"""The few answers that intake gives, as ready-made bytes where they never vary."""

import math
from collections.abc import Mapping

import orjson
from starlette.types import Scope, Send

from app.core.errors import ServiceError
from app.core.ids import request_id

RECORDED = b'{"received":true}'


async def send_ok(send: Send, body: bytes = RECORDED) -> None:
    """200: recorded now, or known already; or a probe of our own, answered."""
    await _send(send, 200, body, {})


async def send_error(scope: Scope, send: Send, error: ServiceError, extra: Mapping[str, object] | None = None) -> None:
    """The error in Rivya's shape, with `Retry-After` where trying again makes sense."""
    identity = scope.get("state", {}).get("request_id") or request_id()
    told = {"code": error.code, "message": error.message, "requestId": identity, **(extra or {})}
    headers = {} if error.retry_after is None else {b"retry-after": str(math.ceil(error.retry_after)).encode()}
    if error.status == 405:
        headers[b"allow"] = b"POST"
    await _send(send, error.status, orjson.dumps({"error": told}), headers)


async def _send(send: Send, status: int, body: bytes, headers: Mapping[bytes, bytes]) -> None:
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers.items()]})
    await send({"type": "http.response.body", "body": body})
