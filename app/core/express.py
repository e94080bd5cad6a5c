"""A FastAPI application with a few paths that are served before any middleware, for what is asked for incessantly."""

from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send


class Express(FastAPI):
    """Of a bare request two thirds are routing and middleware: what is `put_first` does without them.

    It has to answer every request itself, errors included, and to count it (`app.core.requests.count`).
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - FastAPI's own
        super().__init__(**options)
        self._first: tuple[tuple[str, ASGIApp], ...] = ()

    def put_first(self, prefix: str, application: ASGIApp) -> None:
        """Have `application` answer everything whose path begins with `prefix`, which no other may begin with."""
        self._first = (*self._first, (prefix, application))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            path = scope["path"]
            for prefix, application in self._first:
                if path.startswith(prefix):
                    return await application(scope, receive, send)
        return await super().__call__(scope, receive, send)
