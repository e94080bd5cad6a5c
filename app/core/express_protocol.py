"""uvicorn's HTTP protocol, with an express lane: a request that came whole and is ordinary needs no task of its own.

A task, its ASGI messages and their checks cost as much as everything that a delivery needs. What came in pieces, asks
for anything special, or turns out not to be ordinary goes uvicorn's own way, from its beginning.
"""

import asyncio
import sys
from typing import Any, cast

import httptools
import structlog
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.core.bounded_protocol import BoundedProtocol
from app.core.express import Lane, Laned
from app.core.express_exchange import LaneExchange

log = structlog.stdlib.get_logger(__name__)

_OUR_FAULT = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class ExpressProtocol(BoundedProtocol):
    """Takes requests where uvicorn would make cycles of them; `requirements.txt` pins the version it is written for."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **options)
        is_plain = isinstance(self.app, Laned) and not self.root_path and self.limit_concurrency is None
        self._laned: Laned | None = cast("Laned", self.app) if is_plain else None
        self._held: LaneExchange | None = None
        """A request that is still being parsed."""
        self._under_way: RequestResponseCycle | LaneExchange | None = None
        """What is being answered: not `cycle`, which is the last that came, where requests came without waiting."""
        self._idle_since: float | None = None

    def data_received(self, data: bytes) -> None:
        """What isn't whole by the end of these bytes goes the ordinary way, where its slowness is bounded."""
        self._idle_since = None
        super().data_received(data)
        self._hand_over_what_is_not_whole()

    def read_on(self) -> None:
        """The same for bytes that have waited."""
        self._idle_since = None
        super().read_on()
        self._hand_over_what_is_not_whole()

    def on_headers_complete(self) -> None:
        """Hold the request if a lane may have it."""
        if not self.url.startswith(b"/") and httptools.parse_url(self.url).path is None:
            raise httptools.HttpParserInvalidURLError(self.url)
        lane = self._lane()
        if lane is None:
            super().on_headers_complete()
            return
        self.head_size = 0
        self.headers = []  # what follows is trailers
        path, _, query = self.url.partition(b"?")
        scope, version = cast("Scope", self.scope), self.parser.get_http_version()
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"], scope["raw_path"], scope["query_string"] = path.decode("ascii"), path, query
        keep_alive = version != "1.0" and self.parser.should_keep_alive()
        self._held = LaneExchange(self, scope, lane, keep_alive=keep_alive)
        self._under_way = self._held
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
        held.offer()

    def on_response_complete(self) -> None:
        """As uvicorn does, but with one timer for a connection's life instead of one for each of its requests."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self.read_on_soon()
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
        """Forget the timer too, and tell the request that is being answered: uvicorn tells the last that came."""
        super().connection_lost(exc)
        if self._under_way is not None and not self._under_way.response_complete:
            self._under_way.disconnected = True
            self._under_way.message_event.set()
        self.pipeline.clear()
        self._held = self._under_way = None
        self.cycle = cast("RequestResponseCycle", None)  # it knows us: nothing is left for the collector
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def send_400_response(self, msg: str) -> None:
        """As uvicorn does; but what its parser calls a bad request may be an exception of ours, which is a 500."""
        failure = sys.exception()
        cause = failure.__context__ if isinstance(failure, httptools.HttpParserCallbackError) else None
        if cause is None or isinstance(cause, httptools.HttpParserError):
            super().send_400_response(msg)
            return
        log.error("request.not_parsed", exc_info=cause)
        self.transport.write(_OUR_FAULT)
        self.transport.close()

    @property
    def is_leaving(self) -> bool:
        """Every answer from now on ends its connection."""
        return self._laned is not None and self._laned.is_leaving

    def hand_over(self, held: LaneExchange) -> None:
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

    def _hand_over_what_is_not_whole(self) -> None:
        held, self._held = self._held, None
        if held is not None and not self.transport.is_closing():
            held.otherwise()

    def _lane(self) -> Lane | None:
        """Which lane may have the request whose headers have come; none while another is under way.

        None also for who sends and does not read: uvicorn waits for that, and reads nothing more meanwhile.
        """
        before: RequestResponseCycle | LaneExchange | None = self.cycle
        if (before is not None and not before.response_complete) or self.flow.write_paused:
            return None
        url = self.url
        if self._laned is None or self.expect_100_continue or not url.isascii() or b"%" in url or b"#" in url:
            return None
        if self.parser.should_upgrade():
            return None
        try:
            return self._laned.lane(url.decode("ascii"))
        except Exception:
            log.exception("fast_path.failed")
            return None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - uvicorn's own
        self._under_way = cycle
        super()._start_asgi_task(cycle, app)

    def _look_again_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """The timer stays: what it looks at has been told."""
