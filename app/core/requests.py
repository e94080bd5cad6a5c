"""Gives every request an id, which its log lines and its answer carry, and counts answers by route and caller."""

import re
from collections.abc import Iterable

import structlog
from prometheus_client import Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.ids import request_id

API_CALLS = Counter(
    "receiver_api_calls",
    "Calls with one of the receiver's tokens, by the token's name and route; result is succeeded, refused, failed, "
    "abandoned (the caller left) or broken (Rivya broke off).",
    ["token", "route", "result"],
)
HTTP_REQUESTS = Counter("receiver_http_requests", "Requests answered, by route.", ["route", "method", "status"])

_HEADER = b"x-request-id"
_RESULT = "call_result"
_IS_COUNTED = "call_is_counted"
_PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Requests:
    """ASGI middleware: `scope["state"]["request_id"]`, the header X-Request-Id, the bound log lines, the count.

    The caller's own X-Request-Id is kept if it is at most 64 letters, digits, dots, dashes and underscores.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = _given(scope["headers"]) or request_id()
        scope.setdefault("state", {})["request_id"] = identity
        header = (_HEADER, identity.encode())

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["state"].setdefault(_RESULT, _result_of(message["status"]))
                message["headers"] = [*message.get("headers", ()), header]
                _count(scope, message["status"])
            elif not message.get("more_body", False):
                _count_call(scope)  # before its end is told, so that whoever has the answer finds it counted
            await send(message)

        tokens = structlog.contextvars.bind_contextvars(request_id=identity)
        try:
            await self._app(scope, receive, tell)
        finally:
            structlog.contextvars.reset_contextvars(**tokens)
            _count_call(scope)


def _given(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        if name == _HEADER:
            return value.decode() if _PLAIN.fullmatch(value) else None
    return None


def note_result(scope: Scope, result: str) -> None:
    """Have this request's call counted as `result`, whatever its status was when it began."""
    scope["state"][_RESULT] = result


def _result_of(status: int) -> str:
    return "succeeded" if status < 400 else "refused" if status < 500 else "failed"


def _count_call(scope: Scope) -> None:
    state = scope["state"]
    if "caller" in state and not state.setdefault(_IS_COUNTED, False):
        state[_IS_COUNTED] = True
        route = getattr(scope.get("route"), "path", "none")
        API_CALLS.labels(state["caller"].name, route, state.get(_RESULT, "abandoned")).inc()


def _count(scope: Scope, status: int) -> None:
    # The route's template, never the path: paths are endless, and one of them holds a secret.
    route = getattr(scope.get("route"), "path", "none")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    HTTP_REQUESTS.labels(route, method, status).inc()
