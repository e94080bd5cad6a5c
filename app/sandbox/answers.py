"""Answers as they leave the sandbox: JSON, refusals in the documented shape, and no answer at all."""

import socket
import struct
from typing import Any, Literal

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.sandbox.errors import error_body
from app.sandbox.ids import new_id

TRANSPORT = "sandbox.transport"
"""The ASGI extension by which the server lends out a connection's transport."""


def json_answer(content: object, *, status: int = 200) -> Response:
    """A JSON body."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def refusal(code: str, message: str, *, status: int) -> Response:
    """The documented error body with a fresh request id."""
    return json_answer(error_body(code, message, new_id("req")), status=status)


class NoAnswer(Response):
    """Closes the connection without a word: politely, or with a reset."""

    def __init__(self, manner: Literal["reset", "hang_up"]) -> None:
        super().__init__()
        self._manner = manner

    async def __call__(self, scope: Scope, receive: Receive, _: Send) -> None:
        """End the connection, wait until the server noticed; raises ConnectionResetError where there is no server."""
        transport: Any = scope.get("extensions", {}).get(TRANSPORT)
        if transport is None:
            raise ConnectionResetError("The sandbox hung up.")
        if self._manner == "reset":
            # A linger time of zero makes the kernel answer with RST instead of FIN.
            no_linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        transport.abort()
        while (await receive())["type"] != "http.disconnect":
            pass
