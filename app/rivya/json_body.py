"""Parse a JSON body, and the two shapes in which a list may come."""

from typing import Any

import orjson

from app.rivya.errors import PayloadUnreadable


def read_json(body: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Return the JSON value of a body. Raises PayloadUnreadable."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise PayloadUnreadable("not JSON") from None


def list_items(value: object) -> list[Any]:
    """Return the items of `{"object": "list", "data": […]}` or of a bare array. Raises PayloadUnreadable."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and value.get("object", "list") == "list" and isinstance(value.get("data"), list):
        items: list[Any] = value["data"]
        return items
    raise PayloadUnreadable("not a list")
