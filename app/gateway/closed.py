"""Rivya's webhook paths, which are not relayed: the receiver manages its own endpoint."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from app.core.auth import Access, Caller, Role
from app.core.errors import ServiceError

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class WebhooksManaged(ServiceError):
    """A caller that changed the receiver's endpoint would cut it off from Rivya's callbacks."""

    status = 403
    code = "webhooks_managed"


def add_closed_paths(routes: APIRouter, access: Access) -> None:
    """Have every webhook path answer 403, with a word of what to use instead."""

    async def closed(_: Annotated[Caller, Depends(access.require(Role.READ))]) -> Response:
        """Not relayed."""
        message = (
            "The receiver manages its own webhook endpoint with Rivya, so webhooks can't be managed through it; "
            "see GET /api/v1/endpoint and GET /api/v1/deliveries."
        )
        raise WebhooksManaged(message)

    for path in ("/webhooks", "/webhooks/{rest:path}", "/webhook-events", "/webhook-events/{rest:path}"):
        routes.add_api_route(path, closed, methods=_METHODS, include_in_schema=False)
