"""A request in a lane, in the place of uvicorn's cycle, which costs as much as everything that a delivery needs."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from starlette.types import Scope

from app.core.express import OK, Lane

if TYPE_CHECKING:
    from app.core.express_protocol import ExpressProtocol

log = structlog.stdlib.get_logger(__name__)

_RECORDED = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_ANSWER = b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b"
_CLOSING = b"connection: close\r\n"


class LaneExchange:
    """`app.core.express.Exchange`, with those members of uvicorn's own that are looked at."""

    __slots__ = (
        "_on_disconnect", "_protocol", "disconnected", "is_whole", "keep_alive", "lane", "pieces", "response_complete",
        "scope",
    )  # fmt: skip

    def __init__(self, protocol: "ExpressProtocol", scope: Scope, lane: Lane, *, keep_alive: bool) -> None:
        self._protocol = protocol
        self.scope = scope
        self.lane = lane
        self.keep_alive = keep_alive
        self.pieces: list[bytes] = []
        self._on_disconnect: Callable[[], None] | None = None
        self.is_whole = self.disconnected = self.response_complete = False

    @property
    def more_body(self) -> bool:
        """As uvicorn's cycle has it: the request is not whole."""
        return not self.is_whole

    @property
    def is_abandoned(self) -> bool:
        """The connection is gone."""
        return self.disconnected

    @property
    def message_event(self) -> "LaneExchange":
        """In the place of the event that uvicorn sets when the connection is lost."""
        return self

    def set(self) -> None:
        """The connection is lost, perhaps after the answer."""
        callback, self._on_disconnect = self._on_disconnect, None
        if callback is not None and self.disconnected:
            callback()

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Have `callback` called if the connection is lost before there is an answer."""
        self._on_disconnect = callback

    def offer(self) -> None:
        """Offer the request, which is whole, to its lane. Never raises: the parser would call that a bad request."""
        self.is_whole = True
        body = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        try:
            is_taken = self.lane(self.scope, body, self)
        except Exception:
            log.exception("fast_path.failed")
            is_taken = False
        if not is_taken:
            self.otherwise()

    def respond(self, headers: bytes = b"", body: bytes = b"", *, status: bytes = OK) -> None:
        """Answer. Raises only while nothing has been sent."""
        protocol = self._protocol
        if self.response_complete or self.disconnected or protocol.transport.is_closing():
            return
        if protocol.is_leaving:
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
        except Exception:  # too late for another answer, but the end of the connection is one, too
            log.exception("fast_path.broken_off")
            self._protocol.transport.close()

    def otherwise(self) -> None:
        """Have the application itself answer, unless there is an answer already."""
        if self.response_complete or self.disconnected:
            return
        self.response_complete, self._on_disconnect = True, None
        try:
            self._protocol.hand_over(self)
        except Exception:  # too late for another answer, but the end of the connection is one, too
            log.exception("fast_path.broken_off")
            self._protocol.transport.close()
