"""Says goodbye to clients that keep connections: once told to stop, every answer ends its connection."""

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol, runtime_checkable

from starlette.types import Message, Receive, Scope, Send

from app.fastpath.application import Express, Lane

_CLOSE = (b"connection", b"close")
_BETWEEN_LOOKS = 0.02
_MOST_LOOKS = 50


@runtime_checkable
class _Cycle(Protocol):
    """A request as uvicorn keeps it."""

    response_complete: bool


class Farewell:
    """ASGI middleware: passes everything on, and from `begin` on adds `Connection: close` to every answer.

    To those of the lanes, which don't pass through here, the protocol adds it.
    """

    def __init__(self, app: Express) -> None:
        self._app = app
        self.is_leaving = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def tell(message: Message) -> None:
            if self.is_leaving and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), _CLOSE]
            await send(message)

        await self._app(scope, receive, tell if scope["type"] == "http" else send)

    def lane(self, path: str) -> Lane | None:
        """The application's own."""
        return self._app.lane(path)

    def begin(self) -> None:
        """We are about to stop."""
        self.is_leaving = True

    async def idle_connections_gone(self, connections: Callable[[], Collection[object]]) -> None:
        """Return when no connection is without a request any more, after 1 second at most.

        A request may be on its way on any of them: closed at once, its sender would get no answer at all.
        """
        for _ in range(_MOST_LOOKS):
            await asyncio.sleep(_BETWEEN_LOOKS)  # what was accepted just now becomes a connection
            if not any(_is_idle(each) for each in connections()):
                return


def _is_idle(connection: object) -> bool:
    cycle = getattr(connection, "cycle", None)
    return not isinstance(cycle, _Cycle) or cycle.response_complete
