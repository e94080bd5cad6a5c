"""The body of a delivery: the documented head, then the object wherever the chosen envelope puts it."""

from typing import Any, Literal

import orjson

Envelope = Literal["data", "data.object", "data.generation", "generation", "object"]
API_VERSION = "2026-05-11"


def wrap(head: dict[str, Any], carried: dict[str, Any], envelope: Envelope) -> bytes:
    """The JSON bytes of a delivery; `head` brings id, type, api_version and created_at."""
    body: dict[str, Any] = carried
    for member in reversed(envelope.split(".")):
        body = {member: body}
    return orjson.dumps({**head, **body})
