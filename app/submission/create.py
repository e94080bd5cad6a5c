"""The body and the key of a create, checked as far as we must; Rivya decides the rest. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from app.core.errors import ServiceError
from app.rivya.parsing import LONGEST_REFERENCE, usable_reference

MOST_BYTES = 1024 * 1024
LONGEST_KEY = 255


class CreateInvalid(ServiceError):
    """The body or the key can't be used; nothing was sent."""

    status = 400
    code = "validation_failed"


class CreateTooLarge(ServiceError):
    """The body is larger than we take."""

    status = 413
    code = "payload_too_large"

    def __init__(self) -> None:
        super().__init__(f"The body is larger than {MOST_BYTES} bytes.")


@dataclass(frozen=True, slots=True)
class Create:
    """A create as it is forwarded, byte for byte."""

    body: bytes = field(repr=False)
    digest: str
    """SHA-256 of the body, hex."""
    client_request_id: str | None


def read_create(body: bytes) -> Create:
    """Check a body. Raises `CreateInvalid` that names what is wrong."""
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise CreateInvalid("The body must be a JSON object; it is not JSON.") from None
    if not isinstance(members, dict):
        raise CreateInvalid("The body must be a JSON object.")
    model = members.get("model")
    if not isinstance(model, str) or not model.strip():
        raise CreateInvalid("model is required and must be a non-empty string.")
    reference = members.get("client_request_id")
    if reference is not None and usable_reference(reference) is None:
        message = f"client_request_id must be a string of 1 to {LONGEST_REFERENCE} characters without NUL."
        raise CreateInvalid(message)
    return Create(body, hashlib.sha256(body).hexdigest(), reference)


def read_key(values: Sequence[str]) -> str | None:
    """The caller's `Idempotency-Key`, None without one. Raises `CreateInvalid`."""
    if not values:
        return None
    key = values[0]
    is_plain = key.isascii() and key.isprintable() and key == key.strip()  # blanks at its ends would not arrive
    if len(values) > 1 or not 0 < len(key) <= LONGEST_KEY or not is_plain:
        raise CreateInvalid(f"Idempotency-Key must be one value of 1 to {LONGEST_KEY} printable ASCII characters.")
    return key
