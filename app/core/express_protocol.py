"""uvicorn's HTTP protocol, with an express lane: a request that came whole and is ordinary needs no task of its own.

A task, its ASGI messages and their checks cost as much as everything that a delivery needs. What came in pieces, asks
for anything special, or turns out not to be ordinary goes uvicorn's own way, from its beginning.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.core.express import Lane, Laned

_OK = b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b"
_CLOSING = b"connection: close\r\n"


class ExpressProtocol(HttpToolsProtocol):
    """Overrides where uvicorn starts the task of a request; `requirements.txt` pins the version this is written for."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **options)
        self._held: tuple[RequestResponseCycle, Any, Lane] | None = None
        """A request whose body is still being parsed, out of the bytes that are being received."""
        self._laned = self.app if isinstance(self.app, Laned) else None
        self._is_receiving = False

    def data_received(self, data: bytes) -> None:
        """What isn't whole by the end of these bytes goes the ordinary way, where its slowness is bounded."""
        self._is_receiving = True
        super().data_received(data)
        self._is_receiving = False
        if self._held is not None:
            cycle, app, _ = self._held
            self._held = None
            super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        """The request is whole: take it, if it was held for that."""
        super().on_message_complete()
        if self._held is not None and self._held[0] is self.cycle:
            cycle, app, lane = self._held
            self._held = None
            self._take(cycle, app, lane)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - uvicorn's own
        lane = self._laned.lane(cycle.scope["path"]) if self._laned is not None and app is self._laned else None
        if lane is None or cycle.waiting_for_100_continue:
            super()._start_asgi_task(cycle, app)
        elif not cycle.more_body:
            self._take(cycle, app, lane)
        elif self._is_receiving and self._held is None:
            self._held = (cycle, app, lane)
        else:
            super()._start_asgi_task(cycle, app)

    def _take(self, cycle: RequestResponseCycle, app: Any, lane: Lane) -> None:  # noqa: ANN401 - uvicorn's own
        otherwise: Callable[[], None] = partial(super()._start_asgi_task, cycle, app)
        scope = cast("Scope", cycle.scope)
        if not lane(scope, bytes(cycle.body), partial(self._respond, cycle), otherwise):
            otherwise()

    def _respond(self, cycle: RequestResponseCycle, headers: bytes, body: bytes) -> None:
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        if self._laned is not None and self._laned.is_leaving:
            cycle.keep_alive = False
        said = headers if cycle.keep_alive else headers + _CLOSING
        self.transport.write(_OK % (said, len(body), body))
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
