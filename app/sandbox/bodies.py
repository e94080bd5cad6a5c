"""Request bodies: a JSON object, or a refusal."""

from typing import Any

import orjson
from starlette.requests import Request

from app.sandbox.errors import invalid


async def json_object(request: Request) -> dict[str, Any]:
    """The JSON object sent; raises `validation_failed`."""
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise invalid("The body must be JSON.") from None
    if not isinstance(body, dict):
        raise invalid("The body must be a JSON object.")
    return body
