"""A request in a lane, in the place of uvicorn's cycle, which costs as much as everything that a delivery needs."""

from typing import TYPE_CHECKING

from starlette.types import Scope

from app.core.express import OK, Lane

if TYPE_CHECKING:
    from app.core.express_protocol import ExpressProtocol

_RECORDED = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_ANSWER = b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b"
_CLOSING = b"connection: close\r\n"


class _NobodyWaits:
    def set(self) -> None:
        """In the place of an event: nothing to do."""


class LaneExchange:
    """`app.core.express.Exchange`, with those members of uvicorn's own that are looked at."""

    __slots__ = (
        "_protocol", "disconnected", "is_whole", "keep_alive", "lane", "pieces", "response_complete", "scope",
    )  # fmt: skip
    message_event = _NobodyWaits()

    def __init__(self, protocol: "ExpressProtocol", scope: Scope, lane: Lane, *, keep_alive: bool) -> None:
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
        protocol = self._protocol
        if self.disconnected or protocol.transport.is_closing():
            return
        self.response_complete = True
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
