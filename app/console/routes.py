"""All routes of the console, in their order."""

from fastapi import APIRouter, Request, Response

from app.console import audit, overview, sign_in, stream
from app.console.overview import Overview
from app.console.pages import Console
from app.console.sign_in import FailedSignIns
from app.core.errors import NotFound
from app.gateway.service import Gateway
from app.ledger.feed import FeedTail


def router(
    console: Console, failed_sign_ins: FailedSignIns, *, overview_page: Overview, gateway: Gateway, tail: FeedTail
) -> APIRouter:
    """The routes."""
    routes = APIRouter(include_in_schema=False)
    for part in (
        sign_in.router(console, failed_sign_ins),
        overview.router(console, overview_page, gateway),
        audit.router(console),
        stream.router(console, tail),
    ):
        routes.include_router(part)
    routes.include_router(_rest(console))
    return routes


def _rest(console: Console) -> APIRouter:
    routes = console.router()

    @routes.get("/{path:path}")
    async def nothing(request: Request, path: str) -> Response:
        """The overview for a slash too many, else an error page."""
        if not path:
            return console.redirect(request, "/console")
        raise NotFound("There is no such page.")

    return routes
