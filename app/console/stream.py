"""GET /console/events: tells an open page that the feed has moved, so that it reads itself anew."""

import asyncio
from contextlib import aclosing
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Response
from starlette.types import Send

from app.api.events import SECONDS_BETWEEN_COMMENTS, EventStream
from app.api.parameters import Text
from app.console.pages import Console
from app.core.auth import Caller, Role
from app.ledger.feed import LATEST, FeedPage, FeedTail
from app.ledger.models import EventFilter

_SECONDS_TOGETHER: Final = 0.5
"""What happens within this time is one message: a page is read anew twice a second at most."""
_CHANGED: Final = b"event: changed\ndata: {}\n\n"


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


def router(console: Console, tail: FeedTail) -> APIRouter:
    """The route."""
    routes = console.router()

    @routes.get("/events")
    async def follow(
        caller: Annotated[Caller, Depends(console.require(Role.READ))],
        generation_id: Annotated[Text | None, Query()] = None,
    ) -> Response:
        """A stream of messages without content."""
        chosen = EventFilter(generation_id=generation_id, owner=caller.owner)
        after = await tail.feed.cursor(LATEST)
        return ChangeStream(tail, chosen, after, validity=console.access.while_waiting(caller))

    return routes
