"""GET /api/v1/endpoint: our registration with Rivya as callers see it, and what became of it."""

from typing import Annotated

from fastapi import APIRouter, Depends

from app.core.auth import Access, Caller, Role
from app.endpoint.showing import Showing
from app.endpoint.views import EndpointView, HistoryView


def router(access: Access, showing: Showing) -> APIRouter:
    """The routes that tell."""
    routes = APIRouter(prefix="/api/v1", tags=["endpoint"])

    @routes.get(
        "/endpoint",
        summary="The endpoint that Rivya delivers to",
        responses={404: {"description": "`not_found`: no endpoint is registered yet"}},
    )
    async def get_endpoint(caller: Annotated[Caller, Depends(access.require(Role.READ))]) -> EndpointView:
        """Its state, how deliveries fare at it, what proved its scheme, since when its secrets are valid; no secret."""
        return await showing.endpoint(caller)

    @routes.get("/endpoint/history", summary="What became of our endpoints")
    async def get_history(_: Annotated[Caller, Depends(access.require(Role.ADMIN))]) -> HistoryView:
        """States reached, repairs, rotations and proofs, newest first."""
        return await showing.history()

    return routes
