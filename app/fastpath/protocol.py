"""uvicorn's HTTP protocol, with a fast path: a complete, plain request is answered without a task of its own.

A task, its ASGI messages and their checks cost as much as all other work for a delivery. A request that arrives in
pieces, or that its fast handler does not accept, goes through uvicorn's own path from its beginning.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any, cast

import structlog
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.core.middleware import STARTED
from app.fastpath.application import OK, FastHandler, FastPathApp
from app.fastpath.connections import BoundedProtocol

log = structlog.stdlib.get_logger(__name__)


_RECORDED = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_ANSWER = b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b"
_CLOSING = b"connection: close\r\n"


class FastExchange:
    """`app.fastpath.application.Exchange`, with the attributes of `RequestResponseCycle` that uvicorn reads."""

    __slots__ = (
        "_on_disconnect", "_protocol", "disconnected", "handler", "is_whole", "keep_alive", "pieces",
        "response_complete", "scope",
    )  # fmt: skip

    def __init__(self, protocol: "FastPathProtocol", scope: Scope, handler: FastHandler, *, keep_alive: bool) -> None:
        self._protocol = protocol
        self.scope = scope
        self.handler = handler
        self.keep_alive = keep_alive
        self.pieces: list[bytes] = []
        self._on_disconnect: Callable[[], None] | None = None
        self.is_whole = self.disconnected = self.response_complete = False

    @property
    def more_body(self) -> bool:
        """Part of the request has not arrived yet, as in uvicorn's cycle."""
        return not self.is_whole

    @property
    def is_abandoned(self) -> bool:
        """The connection is lost."""
        return self.disconnected

    @property
    def message_event(self) -> "FastExchange":
        """Stands in for the event that uvicorn sets when the connection is lost."""
        return self

    def set(self) -> None:
        """Run the disconnect callback, unless the response was sent before the connection was lost."""
        callback, self._on_disconnect = self._on_disconnect, None
        if callback is not None and self.disconnected:
            callback()

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` if the connection is lost before the response."""
        self._on_disconnect = callback

    def offer(self) -> None:
        """Give the complete request to its handler. Never raises: the parser would take that for a bad request."""
        self.is_whole = True
        body = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        try:
            is_taken = self.handler(self.scope, body, self)
        except Exception:
            log.exception("fast_path.failed")
            is_taken = False
        if not is_taken:
            self.fall_back()

    def respond(self, headers: bytes = b"", body: bytes = b"", *, status: bytes = OK) -> None:
        """Send the response. Raises only before any byte is sent."""
        protocol = self._protocol
        if self.response_complete or self.disconnected or protocol.transport.is_closing():
            return
        if protocol.is_draining:
            self.keep_alive = False
        if not self.keep_alive:
            headers += _CLOSING
        answer = _ANSWER % (status, headers, len(body), body) if headers or body else _RECORDED
        self.response_complete, self._on_disconnect = True, None
        try:
            protocol.transport.write(answer)
            if not self.keep_alive:
                protocol.transport.close()
            protocol.on_response_complete()
        except Exception:  # too late for another response: the closed connection reports the failure
            log.exception("fast_path.broken_off")
            self._protocol.transport.close()

    def fall_back(self) -> None:
        """Let the application answer, unless there is a response already."""
        if self.response_complete or self.disconnected:
            return
        self.response_complete, self._on_disconnect = True, None
        try:
            self._protocol.fall_back(self)
        except Exception:  # too late for another response: the closed connection reports the failure
            log.exception("fast_path.broken_off")
            self._protocol.transport.close()


class FastPathProtocol(BoundedProtocol):
    """Gives requests to fast handlers before uvicorn creates a cycle; `requirements.txt` pins the uvicorn version."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **options)
        app: object = self.app
        is_plain = not self.root_path and self.limit_concurrency is None
        self._routes = app if isinstance(app, FastPathApp) and is_plain else None
        self._pending: FastExchange | None = None
        """The request that is being parsed."""

    def after_parsing(self) -> None:
        """Let uvicorn have a request that is still incomplete: its path has deadlines for slow bodies."""
        pending, self._pending = self._pending, None
        if pending is not None and not self.transport.is_closing():
            pending.fall_back()
        super().after_parsing()

    def start_request(self) -> None:
        """Hold the request if it has a fast handler."""
        handler = self._handler()
        if handler is None:
            super().start_request()
            return
        path, _, query = self.url.partition(b"?")
        scope, version = cast("Scope", self.scope), self.parser.get_http_version()
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"], scope["raw_path"], scope["query_string"] = path.decode("ascii"), path, query
        scope["state"][STARTED] = perf_counter()
        keep_alive = version != "1.0" and self.parser.should_keep_alive()
        self._pending = FastExchange(self, scope, handler, keep_alive=keep_alive)
        self.cycle = cast("RequestResponseCycle", self._pending)

    def add_body(self, body: bytes) -> None:
        """Collect a piece of the body."""
        if self._pending is not None:
            self._pending.pieces.append(body)
        else:
            super().add_body(body)

    def end_request(self) -> None:
        """Give the complete request to its handler, if it was held for that."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.offer()
        else:
            super().end_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Do what uvicorn does, and break the reference cycle, so that no work is left for the garbage collector."""
        super().connection_lost(exc)
        self._pending = None
        self.cycle = cast("RequestResponseCycle", None)

    @property
    def is_draining(self) -> bool:
        """Every response from now on closes its connection."""
        return self._routes is not None and self._routes.is_draining

    def fall_back(self, pending: FastExchange) -> None:
        """Let uvicorn create a cycle and a task for the request."""
        cycle = RequestResponseCycle(
            scope=pending.scope,  # type: ignore[arg-type]
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=pending.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.body += b"".join(pending.pieces)
        cycle.more_body, cycle.disconnected = not pending.is_whole, pending.disconnected
        cycle.message_event.set()
        self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    def _handler(self) -> FastHandler | None:
        """The fast handler for the request whose headers have come."""
        url = self.url
        if self._routes is None or self.expect_100_continue or not url.isascii() or b"%" in url or b"#" in url:
            return None
        try:
            return self._routes.handler(url.decode("ascii"))
        except Exception:
            log.exception("fast_path.failed")
            return None
