"""A Rivya that answers every poll with success after 50 ms, and remembers when each came; `python -m bench.rivya PORT`.

GET /arrivals tells the moments, as seconds of the system's monotonic clock.
"""

import asyncio
import sys
import time
from typing import Any

import orjson
import uvicorn

from bench.events import settled

SECONDS = 0.05
_GENERATIONS = "/api/v1/generations/"


class Rivya:
    """An ASGI application."""

    def __init__(self) -> None:
        self.arrivals: list[float] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401, ARG002 - ASGI's own
        """Answer one request."""
        path = scope["path"]
        if path.startswith(_GENERATIONS):
            self.arrivals.append(time.monotonic())
            await asyncio.sleep(SECONDS)
            told: object = settled(path.removeprefix(_GENERATIONS))
        else:
            told = self.arrivals if path == "/arrivals" else {"object": "list", "data": []}
        body = orjson.dumps(told)
        length = str(len(body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        Rivya(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        lifespan="off",
        log_config=None,
        access_log=False,
    )
