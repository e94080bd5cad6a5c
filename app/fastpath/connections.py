"""uvicorn's HTTP protocol with bounds on the memory, the time and the number of connections; the plain way uses it too.

httptools parses all bytes that it gets, and uvicorn creates a task for every request among them. Here the parser gets
one request at a time, and the next one only when the response to it has been handed to the client's socket.
"""

import select
from collections import Counter
from collections.abc import Collection
from typing import Any, Final

import httptools
import structlog
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.core.bodies import declared_length

log = structlog.stdlib.get_logger(__name__)

MAX_HEADER_BYTES: Final = 128 * 1024
"""Limit in bytes of a request's line and headers, of the framing of its chunks, and of its trailers."""
MAX_HEADERS: Final = 2000
"""Limit of the number of headers: in memory the shortest ones are twenty times as large as on the wire."""
MAX_UNPARSED_BYTES: Final = 64 * 1024
"""Bytes that may wait for the response to the request before them; above this limit reading pauses.

Below it reading goes on, so that a disconnect is noticed at once."""

HEAD_SECONDS = 10.0
"""Time from the first byte of a request until its headers are complete."""
WRITE_SECONDS = 30.0
"""Time in which a client may read nothing of what was sent to it."""
HALF_CLOSED_SECONDS = 10.0
"""Time to answer a client that sends nothing more: it waits for the response, or it is gone, and TCP does not tell."""
LINGER_SECONDS = 2.0
"""Time in which a client that was refused may close the connection itself (RFC 9112, 9.6)."""
MAX_DROPPED_BYTES: Final = 1024 * 1024
"""Limit of what is read from it in that time; reading without a limit would take up the event loop."""

_END_OF_HEAD: Final = b"\r\n\r\n"
_BEGUN: Final = len(_END_OF_HEAD) - 1
"""The bytes of an end of headers that two pieces may share."""
_INVALID: Final = b"Invalid HTTP request received."
_BAD_REQUEST: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
    b"connection: close\r\n\r\n%b" % (len(_INVALID), _INVALID)
)
_TIMEOUT: Final = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_OUR_FAULT: Final = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_LEFT: Final[int] = getattr(select, "POLLRDHUP", 0)
"""The client has sent its last byte; only Linux reports this while bytes before it are unread."""


class ConnectionLimits:
    """Bounds the number of a server's connections, and closes those whose clients are too slow."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self.idle: dict[BoundedProtocol, None] = {}
        """The connections that have sent no complete headers since their last response, longest first."""
        self.receiving: dict[BoundedProtocol, None] = {}
        """The connections whose request lacks a part of its body, longest first."""
        self.closed: Counter[str] = Counter()
        """Connections closed since the last log line, by reason."""

    def make_room(self, newest: "BoundedProtocol") -> None:
        """Close a connection if there are too many with `newest`, but none whose complete request is not answered.

        The one that has been idle for longest goes first, then the oldest incomplete request, then `newest`.
        """
        if len(newest.connections) > self._maximum:
            oldest = next(iter(self.idle or self.receiving), newest)
            oldest.cut()
            self.closed["refused" if oldest is newest else "evicted"] += 1

    def enforce(self, connections: Collection[object], now: float) -> None:
        """Close the connections that are past a deadline. `now` is the event loop's time."""
        for connection in tuple(connections):
            if isinstance(connection, BoundedProtocol):
                connection.close_if_overdue(now)
        if self.closed:  # strangers cause this: one line for all
            log.warning("connections.closed", **self.closed)
            self.closed.clear()


class _ReadControl(FlowControl):
    """Reads while neither uvicorn, which has a body in its buffer, nor the protocol has paused reading."""

    is_held = False

    def hold(self) -> None:
        self.is_held = True
        self._transport.pause_reading()

    def release(self) -> None:
        if self.is_held:
            self.is_held = False
            if not self.read_paused:
                self._transport.resume_reading()

    def resume_reading(self) -> None:
        if self.read_paused and self.is_held:
            self.read_paused = False
        else:
            super().resume_reading()


class BoundedProtocol(HttpToolsProtocol):
    """Parses a request only after the one before it is answered, and closes the connections of slow clients.

    Headers end at an empty line, so the parser gets pieces that end there, or where the body ends.
    """

    flow: _ReadControl

    def __init__(self, *arguments: Any, limits: ConnectionLimits, **options: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*arguments, **options)
        self._limits = limits
        self._unparsed = bytearray()
        self._last_bytes = b""
        """The end of what was parsed, in which the end of a head may have begun."""
        self._framing_size = 0
        """Bytes parsed since the last headers were complete or the last piece of a body came."""
        self._body_size = 0
        self._is_in_head = self._is_in_body = self._is_eof = False
        self._refusal: bytes | None = None
        """The response to invalid bytes after a request that is not answered yet."""
        self._since = 0.0
        """When the connection became idle, or the first byte of a request came."""
        self._left_at: float | None = None
        """When the client sent its last byte, or got a response after that."""
        self._refused_at: float | None = None
        """When invalid bytes were answered; what comes after them is dropped."""
        self._dropped = 0
        self._unsent = 0
        self._unsent_since = 0.0

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - uvicorn's own
        """Do what uvicorn does, and make room for this connection."""
        super().connection_made(transport)
        self.flow = _ReadControl(transport)
        self._since = self.loop.time()
        self._limits.make_room(self)
        self._limits.idle[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Do what uvicorn does, and drop what is buffered."""
        self._unparsed.clear()
        self._limits.idle.pop(self, None)
        self._limits.receiving.pop(self, None)
        super().connection_lost(exc)

    def cut(self) -> None:
        """Close the connection without sending what is buffered; it does not count any more."""
        self.connections.discard(self)
        self._limits.idle.pop(self, None)
        self._limits.receiving.pop(self, None)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse `data` now if it holds at most one request and none waits for its response."""
        if self._refused_at is not None:
            self._dropped += len(data)
            if self._dropped > MAX_DROPPED_BYTES:
                self.cut()
            return
        if self._left_at is not None:
            self._left_at = self.loop.time()
        if not self._unparsed and not self._is_busy() and self._is_one_request(data):
            self._parse(data)
            if self._is_in_body or self._refusal is not None:
                self.after_parsing()
        else:
            self._unparsed += data
            self.read_on()

    def read_on(self) -> None:
        """Parse the buffered bytes until a complete request waits for its response."""
        while self._unparsed and self._refusal is None and not self._is_busy() and not self._is_over():
            size = self._piece_size()
            piece = bytes(self._unparsed[:size])
            del self._unparsed[:size]
            self._parse(piece)
        self.after_parsing()

    def after_parsing(self) -> None:
        """Refuse invalid bytes, pause or resume reading, and close the connection if nothing more can come."""
        if self._refusal is not None:
            self._refuse(self._refusal)
        if self._refusal is not None or self._is_over():
            self._unparsed.clear()
        elif self._is_in_body and not self.cycle.response_complete:
            self._limits.receiving.setdefault(self)
        self._bound_reading()
        if self._is_eof and not self._is_busy():
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's meaning of the result, which uvicorn leaves out
        """Keep the connection until what came before is answered; who ends it within a response has left."""
        self._is_eof, self._left_at = True, self.loop.time()
        cycle: object = self.cycle  # or the fast path's exchange, which answers at once
        if isinstance(cycle, RequestResponseCycle) and cycle.response_started and not cycle.response_complete:
            self.cut()
            return False
        self._bound_reading()
        return self._refused_at is None and (self._is_busy() or bool(self._unparsed))

    def pause_writing(self) -> None:
        """Do what uvicorn does, and read nothing more from a client that does not read."""
        super().pause_writing()
        self._bound_reading()

    def resume_writing(self) -> None:
        """Do what uvicorn does, and go on with the next request."""
        super().resume_writing()
        self._unsent = 0
        self.loop.call_soon(self.read_on)

    def on_message_begin(self) -> None:
        """Do what uvicorn does; the time for the headers begins."""
        self._is_in_head, self._body_size, self._since = True, 0, self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Start the request; later fields are trailers, and ignored (RFC 9110, 6.5.1)."""
        if self.parser.should_upgrade():
            return
        if not self.url.startswith(b"/") and httptools.parse_url(self.url).path is None:
            raise httptools.HttpParserInvalidURLError(self.url)
        if self._framing_size > MAX_HEADER_BYTES or len(self.headers) > MAX_HEADERS:
            self._check_headers()
        self._is_in_head, self._is_in_body, self._framing_size = False, True, 0
        self._limits.idle.pop(self, None)
        self.start_request()
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """Add a piece to the request's body."""
        self._framing_size = 0
        self._body_size += len(body)
        self.add_body(body)

    def on_message_complete(self) -> None:
        """End the request, unless it is to be parsed again."""
        if self._is_in_body:
            self._is_in_body = False
            self._limits.receiving.pop(self, None)
            self.end_request()

    def start_request(self) -> None:
        """Let uvicorn create a cycle and a task."""
        super().on_headers_complete()

    def add_body(self, body: bytes) -> None:
        """Give uvicorn a piece of the body."""
        super().on_body(body)

    def end_request(self) -> None:
        """Tell uvicorn that the request is complete."""
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Count the request and parse what waited for its response; uvicorn would start a timer for each request."""
        self.server_state.total_requests += 1
        self._limits.receiving.pop(self, None)
        self._limits.idle[self] = None
        if self.transport.is_closing():
            return
        self._since = self.loop.time()
        if self._left_at is not None:
            self._left_at = self._since
        self.flow.resume_reading()
        if self._unparsed or self._refusal is not None or self._is_eof:
            self.loop.call_soon(self.read_on)

    def close_if_overdue(self, now: float) -> None:
        """Close the connection if its client is too slow or gone. `now` is the event loop's time."""
        if self._is_unread(now):
            self._limits.closed["unread"] += 1
            self.cut()
        elif self._refused_at is not None:
            if now - self._refused_at > LINGER_SECONDS:
                self.transport.close()
        elif not self.transport.is_closing():
            if self.flow.is_held or self.flow.read_paused:
                self._look_for_end(now)
            if self._left_at is not None and not self._unsent and now - self._left_at > HALF_CLOSED_SECONDS:
                self.cut()
            elif self in self._limits.idle:
                self._close_if_idle(now - self._since)

    def _close_if_idle(self, seconds: float) -> None:
        if self._is_in_head and seconds > HEAD_SECONDS:
            self._limits.closed["slow"] += 1
            self.transport.write(_TIMEOUT)
            self.transport.close()
        elif seconds > self.timeout_keep_alive:
            self.transport.close()

    def _is_unread(self, now: float) -> bool:
        """The client has read nothing for `WRITE_SECONDS`, although bytes are there for it."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or not self._unsent or unsent < self._unsent:
            self._unsent_since = now
        self._unsent = unsent
        return bool(unsent) and now - self._unsent_since > WRITE_SECONDS

    def _look_for_end(self, now: float) -> None:
        """Notice a disconnect while reading is paused, when the event loop does not."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), _LEFT)
        for _, events in poll.poll(0):
            if events & (select.POLLERR | select.POLLHUP):
                self.cut()
            elif self._left_at is None:
                self._left_at = now

    def _is_one_request(self, data: bytes) -> bool:
        """No second request can be complete after `data` is parsed."""
        if self._is_in_head:
            return False
        if self._is_in_body:
            rest = self._rest_of_body()
            return rest is not None and len(data) <= rest
        behind = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        # The search for one byte is ten times as fast as for four, and the JSON of a delivery has no CR.
        return data.find(b"\r", behind) < 0 or data.find(_END_OF_HEAD, behind) < 0

    def _piece_size(self) -> int:
        """Bytes to parse next, at least 1: after them, at most one request is complete that was not before."""
        rest = self._rest_of_body()
        if rest is not None:
            return min(rest, len(self._unparsed))
        begun = len(self._last_bytes)
        end = (self._last_bytes + self._unparsed[:_BEGUN]).find(_END_OF_HEAD)
        if end < 0:
            begun, end = 0, self._unparsed.find(_END_OF_HEAD)
        return len(self._unparsed) if end < 0 else end + len(_END_OF_HEAD) - begun

    def _rest_of_body(self) -> int | None:
        """Bytes of the body that have not come; None in a head or a chunked body, whose end is an empty line."""
        length = declared_length(self.scope["headers"]) if self._is_in_body else None
        return None if length is None else length - self._body_size

    def _parse(self, data: bytes) -> None:
        self._framing_size += len(data)
        self._last_bytes = (data if len(data) >= len(_END_OF_HEAD) else self._last_bytes + data)[
            1 - len(_END_OF_HEAD) :
        ]
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(self._response_to(error))
        else:
            if self._framing_size > MAX_HEADER_BYTES:
                self._refuse(_BAD_REQUEST)

    def _response_to(self, error: httptools.HttpParserError) -> bytes:
        """400, but 500 if the parser's error comes from an exception in our code."""
        cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
        if cause is None or isinstance(cause, httptools.HttpParserError):
            self._limits.closed["invalid"] += 1
            return _BAD_REQUEST
        log.error("request.not_parsed", exc_info=cause)
        return _OUR_FAULT

    def _check_headers(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEADER_BYTES or len(self.headers) > MAX_HEADERS:
            raise httptools.HttpParserError("too many or too long headers")

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse the headers again without `Upgrade`: the parser would take what follows for another protocol."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self._refuse(_BAD_REQUEST)
            return
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._parse(b"%b %b HTTP/%b\r\n%b\r\n%b" % (method, self.url, version, b"".join(lines), rest))

    def _refuse(self, response: bytes) -> None:
        """Send an error and close the connection, once the request before is answered.

        Only the sending side is closed at first: a close with unread bytes makes TCP drop responses on their way.
        """
        if self._is_answering():
            self._refusal = response
        elif self._is_over():
            return
        elif self._is_in_body:
            cycle: object = self.cycle
            if not (isinstance(cycle, RequestResponseCycle) and cycle.response_started):
                self.transport.write(response)
            self.transport.close()
        else:
            self.transport.write(response)
            self._refused_at = self.loop.time()
            self._limits.idle.setdefault(self)
            self.transport.write_eof()

    def _is_over(self) -> bool:
        """No further request is parsed."""
        return self._refused_at is not None or self.transport.is_closing()

    def _is_answering(self) -> bool:
        """A complete request is not answered yet."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def _is_busy(self) -> bool:
        """The next request has to wait for a response, or for the client to read one."""
        return self._is_answering() or self.flow.write_paused

    def _bound_reading(self) -> None:
        if self._is_eof or len(self._unparsed) > MAX_UNPARSED_BYTES or self.flow.write_paused:
            self.flow.hold()
        else:
            self.flow.release()
