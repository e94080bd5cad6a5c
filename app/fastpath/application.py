"""A FastAPI application with a few paths that are served before any middleware, for what is asked for incessantly."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

OK: Final = b"200 OK"


class Exchange(Protocol):
    """A request that a lane has taken; it is answered by the first of the methods called, now or later."""

    @property
    def is_abandoned(self) -> bool:
        """The connection is gone: nobody waits for the answer any more."""

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Have `callback` called if the connection is lost before there is an answer."""

    def respond(self, headers: bytes = b"", body: bytes = b"", *, status: bytes = OK) -> None:
        """Answer with these header lines, each ended by CRLF, and this body."""

    def fall_back(self) -> None:
        """Have the application itself answer; what it should know of this attempt is in the scope's `state`."""


class FastHandler(Protocol):
    """Serves the ordinary case of an application's requests without a task for each. What it raises is logged, and the
    application itself answers."""

    def __call__(self, scope: Scope, body: bytes, exchange: Exchange) -> bool:
        """False: this request is not ordinary, and `exchange` is left alone. True: it is answered, now or later."""


@runtime_checkable
class HasFastRoutes(Protocol):
    """An ASGI application with lanes, as `app.fastpath.protocol` is given it."""

    is_leaving: bool
    """Every answer from now on ends its connection."""

    def handler(self, path: str) -> FastHandler | None:
        """Which lane this path has now."""


@dataclass(frozen=True, slots=True)
class FastRoute:
    """What is served first."""

    prefix: str
    application: ASGIApp | None
    handler: FastHandler | None


class FastPathApp(FastAPI):
    """Of a bare request two thirds are routing and middleware: what is `add_fast_route` does without them."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - FastAPI's own
        super().__init__(**options)
        self._first: tuple[FastRoute, ...] = ()

    def add_fast_route(
        self, prefix: str, application: ASGIApp | None = None, *, handler: FastHandler | None = None
    ) -> None:
        """Have `application` answer everything whose path begins with `prefix`, errors included, and count it.

        Where the server is ours (`app.fastpath.protocol`) it asks `handler` before; without an `application` of their
        own, all others are routed as usual.
        """
        self._first = (*self._first, FastRoute(prefix, application, handler))

    def handler(self, path: str) -> FastHandler | None:
        """Which lane this path has."""
        for first in self._first:
            if path.startswith(first.prefix):
                return first.handler
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            path = scope["path"]
            for first in self._first:
                if first.application is not None and path.startswith(first.prefix):
                    return await first.application(scope, receive, send)
        return await super().__call__(scope, receive, send)
