"""A FastAPI application with a few paths that are served before any middleware, for the most frequent requests."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.middleware import start_timer

OK: Final = b"200 OK"
_REPEATED_SLASHES: Final = re.compile("/{2,}")


class Exchange(Protocol):
    """A request that a fast handler has accepted; the first call of `respond` or `fall_back` answers it."""

    @property
    def is_abandoned(self) -> bool:
        """The connection is lost, so no response can be sent."""

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` if the connection is lost before the response."""

    def respond(self, headers: bytes = b"", body: bytes = b"", *, status: bytes = OK) -> None:
        """Send a response with these header lines, each ended by CRLF, and this body."""

    def fall_back(self) -> None:
        """Let the application answer; the handler leaves what it has done in the scope's `state`."""


class FastHandler(Protocol):
    """Serves the frequent case of a route's requests without a task for each.

    An exception is logged, and the application answers.
    """

    def __call__(self, scope: Scope, body: bytes, exchange: Exchange) -> bool:
        """True if the handler answers through `exchange`, now or later; False if it leaves `exchange` unused."""


@runtime_checkable
class HasFastRoutes(Protocol):
    """An ASGI application with fast handlers, as `app.fastpath.protocol` uses it."""

    is_draining: bool
    """Every response from now on closes its connection."""

    def handler(self, path: str) -> FastHandler | None:
        """The fast handler of this path, if there is one."""


@dataclass(frozen=True, slots=True)
class FastRoute:
    """Requests under one prefix that are served before the middleware."""

    prefix: str
    application: ASGIApp | None
    handler: FastHandler | None


class FastPathApp(FastAPI):
    """Serves the paths of `add_fast_route` without routing and middleware: two thirds of a bare request's time."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - FastAPI's own
        super().__init__(**options)
        self._first: tuple[FastRoute, ...] = ()

    def add_fast_route(
        self, prefix: str, application: ASGIApp | None = None, *, handler: FastHandler | None = None
    ) -> None:
        """Let `application` answer all requests whose path begins with `prefix`, errors included, and count them.

        Under our server (`app.fastpath.protocol`) `handler` is called first. Without `application`, requests that it
        does not accept are routed as usual. Only `application` is also served where proxies have doubled a slash: a
        proxy's rules may let `//api/…` pass.
        """
        self._first = (*self._first, FastRoute(prefix, application, handler))

    def handler(self, path: str) -> FastHandler | None:
        """The fast handler of this path, if there is one."""
        for first in self._first:
            if path.startswith(first.prefix):
                return first.handler
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            start_timer(scope)
            path = _REPEATED_SLASHES.sub("/", scope["path"])
            for first in self._first:
                if first.application is not None and path.startswith(first.prefix):
                    scope["path"] = path
                    return await first.application(scope, receive, send)
        return await super().__call__(scope, receive, send)
