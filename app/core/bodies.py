"""Reads request bodies within one limit of time and a limit of bytes, for every route."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope

from app.core.errors import BodyTooLarge, Overloaded, RequestInvalid, ServiceError
from app.core.records import dump_json, json_object

Model = TypeVar("Model", bound=BaseModel)

SECONDS: Final = 10.0
"""A whole body has this long to arrive, and a second more for each `BYTES_PER_SECOND` of it that have arrived."""
BYTES_PER_SECOND: Final = 16 * 1024
CHECK_CALLER_AGAIN: Final = "check_caller_again"
"""In the state of a request with a token: a function of this state that raises if the token is not valid any more."""
MOST_BYTES_OF_MODEL: Final = 64 * 1024
LONGEST_SILENCE: Final = 60.0
"""Seconds between two parts of a body, however much has arrived."""


class BodyIncomplete(ServiceError):
    """408: the end of the body did not arrive in time."""

    status = 408
    code = "request_timeout"
    message = f"The body came too slowly: it has {SECONDS:g} s, and 1 s for each {BYTES_PER_SECOND} bytes."


class ClientDisconnected(BodyIncomplete):
    """The connection was lost before the end of the body, so no answer can be sent."""


class BodyMemory:
    """The bytes of request bodies that this process holds while the rest of them arrives."""

    def __init__(self, most: int = 256 * 1024 * 1024) -> None:
        self.most = most
        self.used = 0

    def take(self, size: int) -> None:
        """Count `size` more bytes. Raises `Overloaded` if that is more than there may be."""
        if self.used + size > self.most:
            raise Overloaded("Too many bodies are being read at once.")
        self.used += size


BODIES: Final = BodyMemory()
DELIVERIES: Final = BodyMemory()
"""Separate from that of deliveries, so that callers can't use up the memory that a delivery needs."""


async def iter_body(receive: Receive) -> AsyncIterator[bytes]:
    """The pieces of the body as they arrive; only the time spent waiting for them counts.

    Raises `ClientDisconnected`, and `BodyIncomplete` when a piece does not arrive in time.
    """
    loop = asyncio.get_running_loop()
    seconds, is_more = SECONDS, True
    while is_more:
        began = loop.time()
        try:
            async with asyncio.timeout(min(seconds, LONGEST_SILENCE)):
                message = await receive()
        except TimeoutError:
            raise BodyIncomplete from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        piece: bytes = message.get("body", b"")
        seconds += len(piece) / BYTES_PER_SECOND - (loop.time() - began)
        if piece:
            yield piece
        is_more = message.get("more_body", False)


async def read_body(scope: Scope, receive: Receive, *, most_bytes: int, memory: BodyMemory = BODIES) -> bytes:
    """The whole body, unchanged.

    Raises `BodyTooLarge` without reading further, for a declared length without reading at all; `Overloaded`; and
    what `iter_body` and the check of the caller raise.
    """
    if (declared_length(scope["headers"]) or 0) > most_bytes:
        raise BodyTooLarge.of(most_bytes)
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in iter_body(receive):
            if size + len(piece) > most_bytes:
                raise BodyTooLarge.of(most_bytes)
            memory.take(len(piece))
            size += len(piece)
            pieces.append(piece)
    finally:
        memory.used -= size
    state = scope.get("state", {})
    if (check_caller := state.get(CHECK_CALLER_AGAIN)) is not None:
        check_caller(state)  # a body may take so long that its token is revoked meanwhile
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def read_model(request: Request, model: type[Model]) -> Model:
    """The JSON object in the body of a request as `model`, of 64 KiB at most; an empty body is an empty object.

    Not left to FastAPI, which reads a body of any size before it asks who calls. Raises `RequestInvalid`,
    `RequestValidationError`, and what `read_body` raises.
    """
    body = await read_body(request.scope, request.receive, most_bytes=MOST_BYTES_OF_MODEL)
    members = json_object(body) if body.strip() else {}
    if members is None:
        raise RequestInvalid("body: must be a JSON object in UTF-8, or be left out.")
    try:
        if model.model_config.get("strict"):  # any JSON in it may nest more deeply than pydantic reads it
            return model.model_validate(members)
        # Strictly, since neither true nor "60" is a number; but 60.0 is a whole one.
        whole = {name: int(it) if isinstance(it, float) and it.is_integer() else it for name, it in members.items()}
        return model.model_validate_json(dump_json(whole), strict=True)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    except RecursionError:
        raise RequestInvalid("body: must not nest so deeply.") from None


async def until_disconnected(receive: Receive) -> None:
    """Return when the client has disconnected; for after the end of the body."""
    while (await receive())["type"] != "http.disconnect":
        pass


def describe_body(model: type[BaseModel], *, is_required: bool = True) -> dict[str, Any]:
    """The body of a route that reads it by itself, for the OpenAPI document: FastAPI's `openapi_extra`."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": is_required, "content": {"application/json": {"schema": schema}}}}


def declared_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """The number of bytes in `Content-Length`; None if it is missing or no number."""
    for name, value in headers:
        if name == b"content-length":
            return int(value[:20]) if value.isdigit() else None  # no body has a length of more than 20 digits
    return None
