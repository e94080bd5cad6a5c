"""The application with two routes that are served before any middleware: deliveries, and reads of a generation."""

import asyncio
import re
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Final, Protocol

import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.waiting import DEADLINE, READ, GenerationsById, Waiting, generation_in
from app.core.auth import Access, Caller
from app.core.errors import ServiceError
from app.core.middleware import (
    ANSWER_LINES,
    HTTP_REQUESTS,
    REQUEST_SECONDS,
    STARTED,
    count,
    count_call,
    count_calls,
    describe_call,
    ensure_request_id,
    seconds_since_start,
)
from app.core.records import json_body
from app.intake.webhook import ROUTE, Attempt, Intake, count_recorded, render_error
from app.ledger.decide import Recorded
from app.ledger.models import Generation, Report, is_visible
from app.ledger.serializers import render
from app.ledger.write_queue import Completion
from app.rivya.payloads import usable_id

log = structlog.stdlib.get_logger(__name__)

OK: Final = b"200 OK"
_REPEATED_SLASHES: Final = re.compile("/{2,}")


class Exchange(Protocol):
    """A request that a fast handler has accepted; the first call of `respond` or `fall_back` answers it."""

    @property
    def is_abandoned(self) -> bool:
        """The connection is lost, so no response can be sent."""

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` if the connection is lost before the response."""

    def respond(self, headers: bytes = b"", body: bytes = b"", *, status: bytes = OK) -> None:
        """Send a response with these header lines, each ended by CRLF, and this body."""

    def fall_back(self) -> None:
        """Let the application answer; the handler leaves what it has done in the scope's `state`."""


class FastHandler(Protocol):
    """Serves the frequent case of a route's requests without a task for each.

    An exception is logged, and the application answers.
    """

    def __call__(self, scope: Scope, body: bytes, exchange: Exchange) -> bool:
        """True if the handler answers through `exchange`, now or later; False if it leaves `exchange` unused."""


@dataclass(frozen=True, slots=True)
class FastRoute:
    """Requests under one prefix that are served before the middleware."""

    prefix: str
    application: ASGIApp | None
    handler: FastHandler | None


class FastPathApp(FastAPI):
    """Serves the paths of `add_fast_route` without routing and middleware: two thirds of a bare request's time."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - FastAPI's own
        super().__init__(**options)
        self._first: tuple[FastRoute, ...] = ()
        self.is_draining = False
        """Every response from now on closes its connection: set when the server stops."""

    def add_fast_route(
        self, prefix: str, application: ASGIApp | None = None, *, handler: FastHandler | None = None
    ) -> None:
        """Let `application` answer all requests whose path begins with `prefix`, errors included, and count them.

        Under our server (`app.fastpath.protocol`) `handler` is called first. Without `application`, requests that it
        does not accept are routed as usual. Only `application` is also served where proxies have doubled a slash: a
        proxy's rules may let `//api/…` pass.
        """
        self._first = (*self._first, FastRoute(prefix, application, handler))

    def handler(self, path: str) -> FastHandler | None:
        """The fast handler of this path, if there is one."""
        for first in self._first:
            if path.startswith(first.prefix):
                return first.handler
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await super().__call__(scope, receive, send)
        scope.setdefault("state", {}).setdefault(STARTED, perf_counter())

        async def send_closing(message: Message) -> None:
            if self.is_draining and message["type"] == "http.response.start":
                # In a new message: an application may send one that it keeps.
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        path = _REPEATED_SLASHES.sub("/", scope["path"])
        for first in self._first:
            if first.application is not None and path.startswith(first.prefix):
                scope["path"] = path
                return await first.application(scope, receive, send_closing)
        return await super().__call__(scope, receive, send_closing)


_UNAUTHORIZED = b"401 Unauthorized"


class FastDelivery:
    """Verifies a delivery and queues its report; other requests go to `Intake`, which repeats no work done here."""

    def __init__(self, intake: Intake, enqueue: Callable[[Report, Completion], None]) -> None:
        self._intake = intake
        self._enqueue = enqueue

    def __call__(self, scope: Scope, body: bytes, exchange: Exchange) -> bool:
        """`FastHandler`."""
        attempt = self._intake.verify_now(scope, body)
        if attempt is None:
            return False
        if attempt.error is not None:
            respond_unauthorized(scope, exchange, attempt.error)
        elif attempt.report is not None:
            try:
                self._enqueue(attempt.report, FastDeliveryReply(scope, exchange, attempt))
            except ServiceError as error:
                attempt.error = error
                return False
        return True


class FastDeliveryReply:
    """Answers 200 once the delivery is committed, and falls back to `Intake` if it could not be."""

    __slots__ = ("_attempt", "_exchange", "_is_answered", "_scope")

    def __init__(self, scope: Scope, exchange: Exchange, attempt: Attempt) -> None:
        self._scope = scope
        self._exchange = exchange
        self._attempt = attempt
        self._is_answered = False

    def done(self) -> bool:
        """Whether the request is answered."""
        return self._is_answered

    def set_result(self, recorded: Recorded, /) -> None:  # noqa: ARG002 - every outcome has the same response
        """Answer 200: the delivery is committed."""
        self._is_answered = self._attempt.is_recorded = True
        try:
            self._exchange.respond()
            count_recorded(self._scope)
        except Exception:
            log.exception("fast_path.failed")
            self._exchange.fall_back()

    def set_exception(self, error: ServiceError, /) -> None:
        """Let `Intake` answer: the delivery is not committed."""
        if not self._is_answered:
            self._is_answered = True
            self._attempt.error = error
            self._exchange.fall_back()


def respond_unauthorized(scope: Scope, exchange: Exchange, error: ServiceError) -> None:
    """401, as `Intake` answers it."""
    body, headers = render_error(scope, error)
    lines = [b"content-type: application/json", *(b"%b: %b" % header for header in headers.items()), b""]
    exchange.respond(b"\r\n".join(lines), body, status=_UNAUTHORIZED)
    count(scope, ROUTE, scope["method"], error.status)


GENERATIONS = "/api/v1/generations/"
_ROUTE = GENERATIONS + "{generation_id}"
_COUNTED, _SECONDS = HTTP_REQUESTS.labels(_ROUTE, "GET", 200), REQUEST_SECONDS.labels(_ROUTE)
_WAIT = re.compile(rb"(?:wait=([0-9]{1,9}))?")
_BEARER = b"bearer "
_END = "generation_read_end"
_HEADERS = b"content-type: application/json\r\n" + ANSWER_LINES + b"x-request-id: %b\r\n"


class FastGenerationRead:
    """Answers 200; all other requests and all errors go to the documented route (`app.api.generations`)."""

    def __init__(self, waiting: Waiting, access: Access) -> None:
        self._waiting = waiting
        self._access = access
        self._written: tuple[Generation, bytes] | None = None
        """The last generation rendered, and its bytes: all callers that wait for it get the same bytes."""
        self._calls: list[dict[str, Any]] = []
        """Those that were answered and are not counted yet."""

    def __call__(self, scope: Scope, body: bytes, exchange: Exchange) -> bool:
        """`FastHandler`."""
        generation_id, query = scope["path"][len(GENERATIONS) :], scope["query_string"]
        wait = _WAIT.fullmatch(query)
        is_plain = scope["method"] == "GET" and not body and "/" not in generation_id
        if not is_plain or wait is None or usable_id(generation_id) is None:
            return False
        caller = self._reader(scope)
        if caller is None:
            return False
        if wait[1] and caller.owner is not None:
            return False  # the route looks first whether it may wait
        seconds = min(int(wait[1] or 0), self._waiting.max_seconds)
        if seconds and not self._access.may_wait(caller):
            return False  # the route refuses it
        if seconds:
            scope["state"][DEADLINE] = asyncio.get_running_loop().time() + seconds
        leave = self._waiting.add_callback(generation_id, seconds, partial(self._answer, scope, caller, exchange))
        if leave is not None:
            exchange.on_disconnect(leave)
            # Without a read the documented route goes on: it refuses the token.
            scope["state"][_END] = (self._access.watch(caller, leave), self._access.begin_wait(caller))
        return True

    def _reader(self, scope: Scope) -> Caller | None:
        """The caller, if the token is valid; None if the documented route has to decide."""
        token = None
        for name, value in scope["headers"]:
            if name == b"prefer":
                return None
            if name == b"authorization":
                if token is not None or value[: len(_BEARER)].lower() != _BEARER:
                    return None  # another scheme, or the header twice: the route has its rules for that
                token = value[len(_BEARER) :].decode("latin-1")
        try:
            return self._access.caller(token)  # every role may read
        except ServiceError:
            return None

    def _answer(
        self, scope: Scope, caller: Caller, exchange: Exchange, answer: "asyncio.Future[GenerationsById] | None"
    ) -> None:
        """Never raises, since no caller would catch it."""
        try:
            for end in scope["state"].pop(_END, ()):
                end()
            if exchange.is_abandoned:
                count_call(scope, caller, _ROUTE, "abandoned", status=None)
                return
            scope["state"][READ] = answer
            generation = generation_in(answer, scope["path"][len(GENERATIONS) :]) if answer is not None else None
            if generation is None or not is_visible(generation, caller.owner):
                exchange.fall_back()
            else:
                exchange.respond(_HEADERS % ensure_request_id(scope).encode(), self._body(generation))
                self._count(scope, caller)
        except Exception:
            log.exception("fast_path.failed")
            exchange.fall_back()

    def _count(self, scope: Scope, caller: Caller) -> None:
        """Count and log the response, together with all others that are sent before the event loop goes on.

        In a loop without sockets and database that takes 19 µs for a read, and one by one 25.
        """
        seconds = seconds_since_start(scope)
        _SECONDS.observe(seconds)
        call = describe_call(scope, caller, _ROUTE, "succeeded", status=200, seconds=seconds)
        if not self._calls:
            asyncio.get_running_loop().call_soon(self._count_calls, context=Context())
        self._calls.append(call)

    def _count_calls(self) -> None:
        calls, self._calls = self._calls, []
        _COUNTED.inc(len(calls))
        count_calls(calls)

    def _body(self, generation: Generation) -> bytes:
        if self._written is None or self._written[0] is not generation:
            self._written = (generation, json_body(render(generation)))
        return self._written[1]
