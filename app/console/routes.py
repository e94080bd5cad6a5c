"""All routes of the console in their order, and those without a module of their own: the audit and the updates."""

import asyncio
from contextlib import aclosing, suppress
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.types import Send

from app.api.events import SECONDS_BETWEEN_COMMENTS, EventStream
from app.api.parameters import AuditParameters, Text
from app.console import overview, sign_in, usage
from app.console.deliveries import DeliveryPages
from app.console.endpoint import EndpointPages
from app.console.generations import GenerationPages, create_router
from app.console.pages import Console, parse_query
from app.console.sign_in import FailedSignIns
from app.console.tokens import TokenPages
from app.console.webhooks import WebhookPages
from app.core.auth import Caller, Role
from app.core.errors import NotFound
from app.ledger.feed import LATEST, FeedPage
from app.ledger.models import EventFilter
from app.tokens.sessions import SessionEnded

_SECTIONS: Final = ("endpoint", "notifications", "tokens", "webhooks")
"""Pages whose forms are sent to addresses below them."""
_SECONDS_TOGETHER: Final = 0.5
"""What happens within this time is one message: a page is read anew twice a second at most."""
_CHANGED: Final = b"event: changed\ndata: {}\n\n"


def router(console: Console, failed_sign_ins: FailedSignIns) -> APIRouter:
    """The routes."""
    routes = APIRouter(include_in_schema=False)
    for pages in (
        sign_in.router(console, failed_sign_ins),
        overview.router(console),
        create_router(console),
        GenerationPages(console).router(),
        DeliveryPages(console).router(),
        EndpointPages(console).router(),
        usage.router(console),
        TokenPages(console).router(),
        WebhookPages(console).router(),
        _others(console),
    ):
        routes.include_router(pages)
    return routes


def _others(console: Console) -> APIRouter:
    routes = console.router()

    @routes.get("/audit")
    async def list_audit(request: Request, _: Annotated[Caller, Depends(console.require(Role.ADMIN))]) -> Response:
        """Who did what: the acts of operators and the refused calls of their routes, newest first."""
        parameters = parse_query(request, AuditParameters)
        page = await console.audit.list(parameters.chosen, after=parameters.cursor, limit=parameters.limit)
        return console.page(request, "audit.html", title="Audit", entries=page.rows, next_cursor=page.last)

    @routes.get("/events")
    async def follow(
        caller: Annotated[Caller, Depends(console.require(Role.READ))],
        generation_id: Annotated[Text | None, Query()] = None,
    ) -> Response:
        """Messages without content, which tell an open page that the feed has moved, so that it reads itself anew."""
        chosen = EventFilter(generation_id=generation_id, owner=caller.owner)
        after = await console.feed_tail.feed.cursor(LATEST)
        return ChangeStream(console.feed_tail, chosen, after, validity=console.access.while_waiting(caller))

    @routes.get("/{path:path}")
    async def nothing(request: Request, path: str) -> Response:
        """The overview for a slash too many, the page of a form for the address it is sent to, else an error page."""
        if not path:
            return console.redirect(request, "/console")
        section, _, rest = path.partition("/")
        if rest and section in _SECTIONS:
            return console.redirect(request, f"/console/{section}")
        with suppress(SessionEnded):
            await console.require(Role.READ)(request)  # so that the error page has the navigation
        raise NotFound("There is no such page.")

    return routes


class ChangeStream(EventStream):
    """One message at the beginning, one after each change, and one every 15 s, for what is not in the feed."""

    async def send_events(self, send: Send) -> None:
        """Send the messages until the process stops."""
        page: FeedPage | None = FeedPage([], self.after)
        while page is not None:
            if page.events:
                await asyncio.sleep(_SECONDS_TOGETHER)
            after = await self.tail.feed.cursor(LATEST)  # before the message: what comes later is another change
            await send({"type": "http.response.body", "body": _CHANGED, "more_body": True})
            paging = self.tail.pages(self.chosen, after, limit=1, seconds=SECONDS_BETWEEN_COMMENTS)
            async with aclosing(paging) as pages:
                page = await anext(pages, None)
