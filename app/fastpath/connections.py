"""uvicorn's HTTP protocol with a bound on what one connection holds in memory."""

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MAX_HEADER_BYTES = 128 * 1024
"""Limit in bytes of a request's line and headers, of the framing of its chunks, and of its trailers."""
MAX_UNPARSED_BYTES = 64 * 1024
"""Bytes that may wait for the response to the request before them; above this limit reading pauses.

Below it reading goes on, so that a disconnect is noticed."""
_END_OF_HEAD = b"\r\n\r\n"
_LEAST_OF_BODY = 512
"""Bytes of a body that are parsed together, even if they contain empty lines."""


class BoundedProtocol(HttpToolsProtocol):
    """Parses a request only after the one before it is answered, and closes a connection whose headers are too long.

    httptools parses all bytes it gets, and uvicorn creates a cycle for every request in them. Headers end at an empty
    line, so the parser gets pieces that end at empty lines.
    """

    head_size = 0
    """Bytes received since the last headers were complete or the last piece of a body came."""
    _refusal: str | None = None
    """The error in the bytes after the requests that are not answered yet."""
    _is_full = False

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **options)
        self._unparsed = bytearray()

    def data_received(self, data: bytes) -> None:
        """Parse `data` now if it ends the headers of at most one request and no request waits for its response."""
        if not self._unparsed and not self._is_answering() and _ends_one_head_at_most(data):
            self._parse(data)
        else:
            self._unparsed += data
            self.read_on()

    def read_on(self) -> None:
        """Parse the buffered bytes until a complete request waits for its response; pause reading if many are left."""
        while self._unparsed and self._refusal is None and not self._is_answering() and not self.transport.is_closing():
            cycle: RequestResponseCycle | None = self.cycle
            end = self._unparsed.find(_END_OF_HEAD, _LEAST_OF_BODY if cycle is not None and cycle.more_body else 0)
            size = len(self._unparsed) if end < 0 else end + len(_END_OF_HEAD)
            piece = bytes(self._unparsed[:size])
            del self._unparsed[:size]
            self._parse(piece)
        if self.transport.is_closing() or self._refusal is not None:
            self._unparsed.clear()
        if self._refusal is not None:
            self._refuse(self._refusal)
        self._bound_reading()

    def read_on_soon(self) -> None:
        """Schedule `read_on` if there is work, without delaying the code that sends the response."""
        if self._unparsed or self._refusal is not None:
            self.loop.call_soon(self.read_on)

    def on_response_complete(self) -> None:
        """Do what uvicorn does, then parse the bytes that waited for this response."""
        super().on_response_complete()
        self.read_on_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """Do what uvicorn does, and drop the unparsed bytes."""
        self._unparsed.clear()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Do what uvicorn does; later fields are trailers, and ignored (RFC 9110, 6.5.1)."""
        if self.parser.should_upgrade():
            return
        self.head_size = 0
        super().on_headers_complete()
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """Do what uvicorn does."""
        self.head_size = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Do what uvicorn does."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _parse(self, data: bytes) -> None:
        self.head_size += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self._refuse("Invalid HTTP request received.")
        else:
            if self.head_size > MAX_HEADER_BYTES:
                self._refuse("The head of the request is too long.")

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse the headers again without `Upgrade`: the parser would take what follows for another protocol."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self._refuse("Invalid HTTP request received.")
            return
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._parse(b"%b %b HTTP/%b\r\n%b\r\n%b" % (method, self.url, version, b"".join(lines), rest))

    def _refuse(self, message: str) -> None:
        """Answer 400 and close the connection, once the requests before are answered."""
        if self._is_answering():
            self._refusal = message
        elif not self.transport.is_closing():
            self.send_400_response(message)

    def _is_answering(self) -> bool:
        """A complete request is not answered yet, or others wait behind one that is not."""
        cycle: RequestResponseCycle | None = self.cycle
        return bool(self.pipeline) or (cycle is not None and not cycle.response_complete and not cycle.more_body)

    def _bound_reading(self) -> None:
        was_full, self._is_full = self._is_full, len(self._unparsed) > MAX_UNPARSED_BYTES
        if self.transport.is_closing():
            return
        if self._is_full:
            self.transport.pause_reading()  # uvicorn's own pause would be ended by any request for a body
        elif was_full and not self.flow.read_paused:
            self.transport.resume_reading()


def _ends_one_head_at_most(data: bytes) -> bool:
    behind = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
    # The search for one byte is ten times as fast as for four, and the JSON of a delivery has no CR.
    return data.find(b"\r", behind) < 0 or data.find(_END_OF_HEAD, behind) < 0
