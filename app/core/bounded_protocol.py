"""uvicorn's HTTP protocol with a bound on what is not a body: it keeps heads of any length in memory otherwise."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST_HEAD = 128 * 1024
"""Bytes: of a request's line and headers, of what is beside its chunks, or of what follows them."""


class BoundedProtocol(HttpToolsProtocol):
    """Answers 400 and cuts a connection whose head, or whatever else is no body, goes on for too long."""

    head_size = 0
    """Bytes that have come since the last head was complete or the last piece of a body came."""

    def data_received(self, data: bytes) -> None:
        """As uvicorn does, and count."""
        self.head_size += len(data)
        super().data_received(data)
        if self.head_size > LONGEST_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        """As uvicorn does."""
        self.head_size = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """As uvicorn does."""
        self.head_size = 0
        super().on_body(body)
