"""The errors that each route documents, and what the document says of the whole."""

from typing import Any

from app.api.documents import ErrorOut
from app.api.quickstart import as_script

DESCRIPTION = (
    "Know the outcome of every Rivya generation: pushed when Rivya calls back, pulled when it does not.\n\n"
    "The paths and objects are Rivya's own; what Rivya lacks is added beside them. Send one of the receiver's tokens: "
    "`Authorization: Bearer <token>`. Roles: `read` lists and reads, `write` also submits and tracks, `admin` sees "
    "everything. Every error has Rivya's shape, and every answer an `X-Request-Id`.\n\n"
    f"## Quickstart\n\n```sh\n{as_script()}\n```\n"
)
TAGS: list[dict[str, Any]] = [
    {"name": "generations", "description": "Submit, track, read and wait for generations."},
    {"name": "usage", "description": "What callers submitted, and what it cost."},
    {
        "name": "rivya",
        "description": "Everything else of Rivya's, relayed: models, credits, files, chat. Status, JSON, error codes "
        "and `requestId` are Rivya's own. Its webhook paths answer 403 `webhooks_managed`.",
    },
    {"name": "deliveries", "description": "What Rivya delivered, as evidence."},
    {"name": "endpoint", "description": "The registration with Rivya."},
    {"name": "operations", "description": "Health and metrics; no token is needed."},
]

_TEXTS = {
    400: "`validation_failed`: names the parameter or member, and what would be right.",
    401: "`api_key_missing`, `api_key_invalid`: no token of the receiver's.",
    403: "`api_scope_denied`: the token's role does not reach that far.",
    404: "`not_found`",
    413: "`payload_too_large`",
    503: "`database_unavailable`, `overloaded`, `not_recorded`: nothing is wrong with the request; try again after "
    "`Retry-After` seconds.",
}


def errors(*statuses: int, also: dict[int | str, dict[str, Any]] | None = None) -> dict[int | str, dict[str, Any]]:
    """The documented errors of a route: those named, those of every route with a token, and any other."""
    named: dict[int | str, dict[str, Any]] = {
        status: _documented(_TEXTS[status]) for status in sorted({*statuses, 401, 403, 503})
    }
    return {**(also or {}), **named, "default": _documented("Any other error, in the same shape.")}


def _documented(description: str) -> dict[str, Any]:
    return {"model": ErrorOut, "description": description}
