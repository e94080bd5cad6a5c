"""uvicorn's HTTP protocol, with an express lane: a request that came whole and is ordinary needs no task of its own.

A task, its ASGI messages and their checks cost as much as everything that a delivery needs. What came in pieces, asks
for anything special, or turns out not to be ordinary goes uvicorn's own way, from its beginning.
"""

import asyncio
from typing import Any, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.core.express import OK, Lane, Laned

_RECORDED = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_ANSWER = b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b"
_CLOSING = b"connection: close\r\n"


class ExpressProtocol(HttpToolsProtocol):
    """Takes requests where uvicorn would make cycles of them; `requirements.txt` pins the version it is written for."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **options)
        is_plain = isinstance(self.app, Laned) and not self.root_path and self.limit_concurrency is None
        self._laned: Laned | None = cast("Laned", self.app) if is_plain else None
        self._held: _Cycle | None = None
        """A request that is still being parsed, out of the bytes that are being received."""
        self._idle_since: float | None = None

    def data_received(self, data: bytes) -> None:
        """What isn't whole by the end of these bytes goes the ordinary way, where its slowness is bounded."""
        self._idle_since = None
        super().data_received(data)
        if self._held is not None:
            held, self._held = self._held, None
            if not self.transport.is_closing():
                self.hand_over(held)

    def on_headers_complete(self) -> None:
        """Hold the request if a lane may have it."""
        lane = self._lane()
        if lane is None:
            super().on_headers_complete()
            return
        path, _, query = self.url.partition(b"?")
        version = self.parser.get_http_version()
        scope = cast("Scope", self.scope)
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"], scope["raw_path"], scope["query_string"] = path.decode("ascii"), path, query
        keep_alive = version != "1.0" and self.parser.should_keep_alive()
        self._held = _Cycle(self, scope, lane, keep_alive=keep_alive)
        self.cycle = cast("RequestResponseCycle", self._held)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._held is not None:
            self._held.pieces.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole: offer it to its lane, if it was held for that."""
        held, self._held = self._held, None
        if held is None:
            super().on_message_complete()
            return
        held.is_whole = True
        body = held.pieces[0] if len(held.pieces) == 1 else b"".join(held.pieces)
        if not held.lane(held.scope, body, held):
            self.hand_over(held)

    def on_response_complete(self) -> None:
        """As uvicorn does, but with one timer for a connection's life instead of one for each of its requests."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_again_in(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle for as long as it may; else look again when it could have been."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return  # the next answer sets the timer anew
        rest = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if rest > 0:
            self._look_again_in(rest)
        else:
            super().timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer too."""
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    @property
    def is_leaving(self) -> bool:
        """Every answer from now on ends its connection."""
        return self._laned is not None and self._laned.is_leaving

    def hand_over(self, held: "_Cycle") -> None:
        """Have uvicorn make a cycle and a task of it after all."""
        cycle = RequestResponseCycle(
            scope=held.scope,  # type: ignore[arg-type]
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=held.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.body += b"".join(held.pieces)
        cycle.more_body, cycle.disconnected = not held.is_whole, held.disconnected
        cycle.message_event.set()
        if cast("object", self.cycle) is held:
            self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    def _lane(self) -> Lane | None:
        """Which lane may have the request whose headers have come; none while another is under way.

        None also for who sends and does not read: uvicorn waits for that, and reads nothing more meanwhile.
        """
        before: RequestResponseCycle | _Cycle | None = self.cycle
        if (before is not None and not before.response_complete) or self.flow.write_paused:
            return None
        url = self.url
        if self._laned is None or self.expect_100_continue or not url.isascii() or b"%" in url or b"#" in url:
            return None
        if self.parser.should_upgrade():
            return None
        return self._laned.lane(url.decode("ascii"))

    def _look_again_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """The timer stays: what it looks at has been told."""


class _NobodyWaits:
    """In the place of an event."""

    def set(self) -> None:
        """Nothing to do."""


class _Cycle:
    """A request in a lane: `app.core.express.Exchange`, with those members of uvicorn's own that are looked at."""

    __slots__ = (
        "_protocol", "disconnected", "is_whole", "keep_alive", "lane", "pieces", "response_complete", "scope",
    )  # fmt: skip
    message_event = _NobodyWaits()

    def __init__(self, protocol: ExpressProtocol, scope: Scope, lane: Lane, *, keep_alive: bool) -> None:
        self._protocol = protocol
        self.scope = scope
        self.lane = lane
        self.keep_alive = keep_alive
        self.pieces: list[bytes] = []
        self.is_whole = self.disconnected = self.response_complete = False

    @property
    def is_abandoned(self) -> bool:
        """The connection is gone."""
        return self.disconnected

    def respond(self, headers: bytes = b"", body: bytes = b"", *, status: bytes = OK) -> None:
        """Answer."""
        if self.disconnected:
            return
        self.response_complete = True
        protocol = self._protocol
        if protocol.is_leaving:
            self.keep_alive = False
        if not self.keep_alive:
            headers += _CLOSING
        protocol.transport.write(_ANSWER % (status, headers, len(body), body) if headers or body else _RECORDED)
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    def otherwise(self) -> None:
        """Have the application itself answer."""
        if not self.disconnected:
            self._protocol.hand_over(self)
