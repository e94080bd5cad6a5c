"""The body of PUT /api/v1/generations/{id}: what a caller may say of a generation made elsewhere."""

from typing import Annotated, Any, Self

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from app.core.errors import ServiceError
from app.rivya.parsing import LONGEST_NAME, storable, usable_name

MOST_BYTES = 64 * 1024
MOST_METADATA_BYTES = 16 * 1024


class TrackInvalid(ServiceError):
    """The request can't be used."""

    status = 400
    code = "validation_failed"


class TrackTooLarge(ServiceError):
    """The body is larger than anything it could say."""

    status = 413
    code = "payload_too_large"

    def __init__(self) -> None:
        super().__init__(f"At most {MOST_BYTES} bytes are taken.")


def _name(value: str) -> str:
    if usable_name(value) is None:
        message = f"must be 1 to {LONGEST_NAME} printable characters"
        raise ValueError(message)
    return value


def _without_nul(value: str) -> str:
    if "\x00" in value:
        message = "must not contain NUL"
        raise ValueError(message)
    return value


def _small(value: dict[str, Any]) -> dict[str, Any]:
    if storable(value) != value:
        message = "must not contain NUL, nor nest more than 200 levels"
        raise ValueError(message)
    if len(orjson.dumps(value)) > MOST_METADATA_BYTES:
        message = f"must be at most {MOST_METADATA_BYTES} bytes as JSON"
        raise ValueError(message)
    return value


class Track(BaseModel):
    """All optional; what is left out stays as it is known."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "example": {"model": "z-image", "client_request_id": "order-1", "metadata": {"customer": "c-42"}}
        },
    )

    model: Annotated[str, AfterValidator(_name), Field(max_length=LONGEST_NAME)] | None = Field(
        None, description="Decides when it is first polled; ignored where the model is known."
    )
    client_request_id: Annotated[str, AfterValidator(_without_nul), Field(min_length=1, max_length=128)] | None = Field(
        None, description="Your own trace id; ignored where one is known."
    )
    metadata: Annotated[dict[str, Any], AfterValidator(_small)] | None = Field(
        None, description="Any object of yours, at most 16 KiB as JSON; replaces the one before."
    )

    @classmethod
    def read(cls, body: bytes) -> Self:
        """What a body says; an empty one says nothing. Raises `TrackInvalid`, `RequestValidationError`."""
        if not body.strip():
            return cls()
        try:
            said = orjson.loads(body)
        except orjson.JSONDecodeError:
            said = None
        if not isinstance(said, dict):
            message = "body: must be a JSON object in UTF-8, or be left out."
            raise TrackInvalid(message)
        try:
            return cls.model_validate(said)
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from None


def checked_id(generation_id: str) -> str:
    """`generation_id` if Rivya can be asked for it. Raises `TrackInvalid`."""
    if usable_name(generation_id) is None or generation_id in {".", ".."}:
        message = f"generation_id: must be 1 to {LONGEST_NAME} printable characters."
        raise TrackInvalid(message)
    return generation_id


async def read_body(request: Request) -> bytes:
    """The whole body. Raises `TrackTooLarge` without reading on, `TrackInvalid` when it does not come whole."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                raise TrackTooLarge
    except ClientDisconnect:
        message = "The body did not arrive whole."
        raise TrackInvalid(message) from None
    return bytes(body)
