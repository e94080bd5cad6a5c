"""uvicorn's HTTP protocol with bounds on what it keeps in memory: of heads, and of requests that follow each other."""

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

LONGEST_HEAD = 128 * 1024
"""Bytes: of a request's line and headers, of what is beside its chunks, or of what follows them."""
MOST_UNPARSED = 64 * 1024
"""Bytes that may wait for an answer to what was sent before them; above this nothing more is read.

Below it reading goes on, so that a client that leaves is noticed."""
_END_OF_HEAD = b"\r\n\r\n"
_LEAST_OF_BODY = 512
"""Bytes of a body that are parsed at once, however many empty lines are in it."""


class BoundedProtocol(HttpToolsProtocol):
    """Parses no request before the one before it is answered, and cuts a connection whose head goes on for too long.

    httptools parses all that it is given, and uvicorn makes a cycle of every request in it. No head ends within a piece
    that lacks an empty line, so the pieces that are given to the parser end at empty lines.
    """

    head_size = 0
    """Bytes that have come since the last head was complete or the last piece of a body came."""
    _refusal: str | None = None
    """What is wrong with the bytes behind the requests that are still to be answered."""
    _is_full = False

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **options)
        self._unparsed = bytearray()

    def data_received(self, data: bytes) -> None:
        """Parse them at once if they end at most one head, and nothing before them waits for its answer."""
        if not self._unparsed and not self._is_answering() and _ends_one_head_at_most(data):
            self._parse(data)
        else:
            self._unparsed += data
            self.read_on()

    def read_on(self) -> None:
        """Parse what has come until a request is whole and not answered; if much is left, read no more."""
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
        """Call `read_on` if there is anything to do; not at once, so that whoever answers is not held up."""
        if self._unparsed or self._refusal is not None:
            self.loop.call_soon(self.read_on)

    def on_response_complete(self) -> None:
        """As uvicorn does, and go on with what has waited for this answer."""
        super().on_response_complete()
        self.read_on_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn does, and forget what is not parsed."""
        self._unparsed.clear()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """As uvicorn does; fields that come later are trailers, and ignored (RFC 9110, 6.5.1)."""
        if self.parser.should_upgrade():
            return
        self.head_size = 0
        super().on_headers_complete()
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """As uvicorn does."""
        self.head_size = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """As uvicorn does."""
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
            if self.head_size > LONGEST_HEAD:
                self._refuse("The head of the request is too long.")

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse the head again without `Upgrade`: the parser takes what follows it for another protocol."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self._refuse("Invalid HTTP request received.")
            return
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._parse(b"%b %b HTTP/%b\r\n%b\r\n%b" % (method, self.url, version, b"".join(lines), rest))

    def _refuse(self, message: str) -> None:
        """Answer 400 and close, once what came before is answered."""
        if self._is_answering():
            self._refusal = message
        elif not self.transport.is_closing():
            self.send_400_response(message)

    def _is_answering(self) -> bool:
        """A request has come as a whole and is not answered, or others wait behind one that is not."""
        cycle: RequestResponseCycle | None = self.cycle
        return bool(self.pipeline) or (cycle is not None and not cycle.response_complete and not cycle.more_body)

    def _bound_reading(self) -> None:
        was_full, self._is_full = self._is_full, len(self._unparsed) > MOST_UNPARSED
        if self.transport.is_closing():
            return
        if self._is_full:
            self.transport.pause_reading()  # uvicorn's own pause would be ended by any request for a body
        elif was_full and not self.flow.read_paused:
            self.transport.resume_reading()


def _ends_one_head_at_most(data: bytes) -> bool:
    behind = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
    # A single byte is found ten times as fast as four, and the JSON of a delivery lacks it.
    return data.find(b"\r", behind) < 0 or data.find(_END_OF_HEAD, behind) < 0
