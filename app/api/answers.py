"""Answers written straight to bytes: the documented models describe them, and cost nothing at run time."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import Response


def answer(content: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`content` as JSON."""
    return Response(orjson.dumps(content), status_code=status, headers=headers, media_type="application/json")


def list_of(items: Sequence[Mapping[str, Any]], *, next_cursor: str | None = None) -> dict[str, Any]:
    """A list as Rivya writes its lists, and where it goes on."""
    return {"object": "list", "data": items, "next_cursor": next_cursor}
