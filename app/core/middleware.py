"""ASGI middleware: request ids, counts of responses by route and caller, security headers, unexpected errors."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from time import perf_counter
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.auth import Caller
from app.core.logs import info_each
from app.core.records import json_body, request_id

CALLERS = CollectorRegistry()
"""Metrics that name tokens: /metrics shows them to the role admin only."""
API_CALLS = Counter(
    "receiver_api_calls",
    "Calls with one of the receiver's tokens, by the token's name and route; result is succeeded, refused, failed, "
    "abandoned (the caller left) or broken (Rivya broke off).",
    ["token", "route", "result"],
    registry=CALLERS,
)
HTTP_REQUESTS = Counter("receiver_http_requests", "Requests answered, by route.", ["route", "method", "status"])

REQUEST_SECONDS = Histogram(
    "receiver_http_request_seconds",
    "Time until a response begins, by route; a long poll may wait as long as it was asked to.",
    ["route"],
    buckets=(0.0025, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)

# Looking a counter up here takes a fifth of the time that `labels` takes.
_counted_calls, _counted_requests = cache(API_CALLS.labels), cache(HTTP_REQUESTS.labels)
_measured = cache(REQUEST_SECONDS.labels)

log = structlog.stdlib.get_logger(__name__)

_HEADER, _TRACE = b"x-request-id", b"traceparent"
STARTED: Final = "started"
"""In the state of a request: when it began, by `perf_counter`."""
_STATUS = "status"
_RESULT = "call_result"
_IS_COUNTED = "call_is_counted"
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,200})?")
_PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestContextMiddleware:
    """Gives every request an id, in `scope["state"]`, X-Request-Id and log lines, and counts its response.

    HEAD is served as GET; the server leaves the body out.
    The caller's own X-Request-Id is used if it is at most 64 letters, digits, dots, dashes and underscores.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {}).setdefault(STARTED, perf_counter())
        identity = ensure_request_id(scope)
        header, method = (_HEADER, identity.encode()), scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # a copy, because the server has to know
            scope["state"]["is_head"] = True

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = scope["state"][_STATUS] = message["status"]
                result = "succeeded" if status < 400 else "refused" if status < 500 else "failed"
                scope["state"].setdefault(_RESULT, result)
                message = {**message, "headers": [*message.get("headers", ()), header]}
                count(scope, route_of(scope), method, status)
            elif not message.get("more_body", False):
                _count_call(scope)  # before the end is sent: a caller that has the whole response finds it counted
            await send(message)

        tokens = structlog.contextvars.bind_contextvars(request_id=identity, **trace_fields(traceparent(scope)))
        try:
            await self._app(scope, receive, send_and_count)
        finally:
            structlog.contextvars.reset_contextvars(**tokens)
            _count_call(scope)


def route_of(scope: Scope) -> str:
    """The route's template, for logs and metrics; never the path: there is no end of paths, and one holds a secret."""
    return getattr(scope.get("route"), "path_format", "none")


def ensure_request_id(scope: Scope) -> str:
    """The request's id: the caller's own, else a new one; it is stored in `scope["state"]`."""
    state = scope.setdefault("state", {})
    if "request_id" not in state:
        given = next((value for name, value in scope["headers"] if name == _HEADER), b"")
        state["request_id"] = given.decode() if _PLAIN.fullmatch(given) else request_id()
    identity: str = state["request_id"]
    return identity


def set_result(scope: Scope, result: str) -> None:
    """Set the result under which this call is counted; it replaces the one from the status."""
    scope["state"][_RESULT] = result


def _count_call(scope: Scope) -> None:
    state = scope["state"]
    if "caller" in state and not state.setdefault(_IS_COUNTED, False):
        state[_IS_COUNTED] = True
        route = route_of(scope)
        count_call(scope, state["caller"], route, state.get(_RESULT, "abandoned"), status=state.get(_STATUS))


def count_call(scope: Scope, caller: Caller, route: str, result: str, *, status: int | None) -> None:
    """Count and log a call with one of our tokens; `status` is None if the caller left before the response."""
    seconds = seconds_since_start(scope)
    count_calls([describe_call(scope, caller, route, result, status=status, seconds=seconds)])


def describe_call(
    scope: Scope, caller: Caller, route: str, result: str, *, status: int | None, seconds: float
) -> dict[str, Any]:
    """A call as `count_calls` takes it: the fields of its log line."""
    trace = traceparent(scope)
    fields = {
        "token": caller.name,
        "method": scope["method"],
        "route": route,
        "status": status,
        "result": result,
        "seconds": round(seconds, 6),
        "request_id": ensure_request_id(scope),
    }
    return fields if trace is None else {**fields, **trace_fields(trace)}


def count_calls(calls: Sequence[Mapping[str, Any]]) -> None:
    """Count and log these calls, each made by `describe_call`."""
    for call in calls:
        _counted_calls(call["token"], call["route"], call["result"]).inc()
    info_each(__name__, "api.called", calls)


def traceparent(scope: Scope) -> str | None:
    """The trace that the caller's request belongs to; None without one in the form of W3C's Trace Context."""
    for name, value in scope["headers"]:
        if name == _TRACE:
            return value.decode() if _TRACEPARENT.fullmatch(value) else None
    return None


def trace_fields(trace: str | None) -> dict[str, str]:
    """The fields of log lines that name a trace, by its `traceparent`."""
    return {} if trace is None else {"trace_id": trace.split("-")[1]}


def seconds_since_start(scope: Scope) -> float:
    """Since the request began; 0 if that is not known."""
    return perf_counter() - float(scope.get("state", {}).get(STARTED, perf_counter()))


def count(scope: Scope, route: str, method: str, status: int) -> None:
    """Count one response under its route's template, and the time until it begins."""
    _measured(route).observe(seconds_since_start(scope))
    _counted_requests(route, method if method in _METHODS else "other", status).inc()


# Pages run only our own files: no inline script or style. Pictures and media are results of generations, at any host.
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; font-src 'self'; "
    "img-src 'self' https: data:; media-src https: 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_ALL: Final = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
_PAGES: Final = ((b"content-security-policy", PAGE_POLICY.encode()), (b"x-frame-options", b"DENY"))
_OTHERS: Final = ((b"cache-control", b"no-store"),)
_DELIVERIES: Final = "/rivya/webhook"

ANSWER_LINES: Final = b"".join(b"%b: %b\r\n" % header for header in (*_ALL, *_OTHERS))
"""The headers of a response that is no page, as lines, for responses that bypass this middleware."""


class SecurityHeadersMiddleware:
    """Adds headers that stop browsers from running, framing or caching a response, where it lacks them.

    Responses to deliveries stay as they are: no browser reads them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name.lower(): value for name, value in headers}
                is_page = present.get(b"content-type", b"").startswith(b"text/html")
                wanted = (*_ALL, *(_PAGES if is_page else _OTHERS))
                added = [(name, value) for name, value in wanted if name not in present]
                message = {**message, "headers": headers + added}
            await send(message)

        is_for_browsers = scope["type"] == "http" and not scope["path"].startswith(_DELIVERIES)
        await self._app(scope, receive, send_with_headers if is_for_browsers else send)


class LastResort:
    """Logs an unexpected exception and answers 500 without its text."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def tracked_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, tracked_send)
        except Exception as error:
            log.exception("request.failed", error=type(error).__name__, route=route_of(scope))
            if has_begun:  # too late for a response: the server closes the connection
                raise
            message = "Something went wrong here; it has been logged."
            detail = {"code": "internal_error", "message": message, "requestId": ensure_request_id(scope)}
            body = json_body({"error": detail})
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 500, "headers": headers})
            await send({"type": "http.response.body", "body": body})
