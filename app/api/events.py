"""GET /api/v1/events: the feed of all transitions, as pages, as a long poll, or as a stream of server-sent events."""

from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.types import Receive, Scope, Send

from app.api.parameters import EventParameters
from app.api.schemas import EventListOut, answer, errors
from app.core.auth import Access, Caller, Role
from app.core.bodies import ClientDisconnected, until_disconnected
from app.core.errors import ServiceError
from app.core.middleware import set_result
from app.core.waiters import run_unless
from app.ledger.feed import Feed, FeedCursor, FeedPage, FeedTail
from app.ledger.models import EventFilter

SECONDS_BETWEEN_COMMENTS: Final = 15.0
"""Less than proxies wait for a byte."""
RETRY_MILLISECONDS: Final = 2000
"""How long a client waits before it connects again."""
_EVENTS_AT_ONCE: Final = 50
_MEDIA_TYPE: Final = "text/event-stream"

log = structlog.stdlib.get_logger(__name__)

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {_MEDIA_TYPE: {"schema": {"type": "string"}}}, "description": "A page, or a stream of events."}
}


def router(feed: Feed, tail: FeedTail, access: Access, *, max_wait: float) -> APIRouter:
    """The route of the feed. `max_wait`: the longest long poll, in seconds."""
    routes = APIRouter(prefix="/api/v1", tags=["events"])

    @routes.get(
        "/events",
        summary="Follow what happens to generations",
        response_model=EventListOut,
        responses=errors(400, also=_RESPONSES),
    )
    async def list_events(
        request: Request,
        parameters: Annotated[EventParameters, Query()],
        caller: Annotated[Caller, Depends(access.require(Role.READ))],
        last_event_id: Annotated[
            str | None, Header(description="Of a stream: the last event that was received; wins over `after`.")
        ] = None,
    ) -> Response:
        """Every transition once, in one order that never changes.

        With `Accept: text/event-stream` the answer is a stream of server-sent events that ends only with the final
        event of `generation_id`; 204 if that has been received already.
        """
        chosen = replace(parameters.chosen, owner=caller.owner)
        if _MEDIA_TYPE not in request.headers.get("accept", ""):
            after = await feed.cursor(parameters.after)
            page = await feed.read(chosen, after=after, limit=parameters.limit)
            seconds = min(parameters.wait, max_wait)
            if seconds and not (page.events or page.gap or page.has_more):
                async with access.while_waiting(caller):
                    waiting = _next_page(tail, chosen, page, limit=parameters.limit, seconds=seconds)
                    page = await run_unless(until_disconnected(request.receive), waiting, error=ClientDisconnected())
            return answer(
                {
                    "object": "list",
                    "data": [event.document for event in page.events],
                    "next_cursor": feed.encode(page.next),
                    "has_more": page.has_more,
                    "gap": page.gap,
                }
            )
        after = await feed.cursor(last_event_id or parameters.after)
        if chosen.generation_id is not None and await _is_over(feed, chosen, after):
            return Response(status_code=204)  # for which an EventSource does not connect again
        return EventStream(tail, chosen, after, validity=access.while_waiting(caller))

    return routes


async def _next_page(tail: FeedTail, chosen: EventFilter, page: FeedPage, *, limit: int, seconds: float) -> FeedPage:
    """The next page with an event or a gap; an empty one when the time is over or the process stops."""
    async with aclosing(tail.pages(chosen, page.next, limit=limit, seconds=seconds)) as pages:
        async for following in pages:
            return following
    return page


async def _is_over(feed: Feed, chosen: EventFilter, after: FeedCursor) -> bool:
    """Whether this cursor is behind the final event of the generation."""
    events = (await feed.read(replace(chosen, status=None), after=FeedCursor(), limit=10)).events
    return any(it.transition.to_status.is_terminal and it.cursor.position <= after.position for it in events)


class EventStream(Response):
    """A response that sends events as they are committed, until the client leaves or the process stops."""

    def __init__(
        self, tail: FeedTail, chosen: EventFilter, after: FeedCursor, *, validity: AbstractAsyncContextManager[None]
    ) -> None:
        super().__init__()
        self.tail = tail
        self.chosen = chosen
        self.after = after
        self._validity = validity
        """Raises `ServiceError` as soon as the caller's token is not accepted any more, and for one stream too many."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; end early, without an error, if the database or the token fails: the client resumes."""
        headers = ((b"content-type", _MEDIA_TYPE.encode()), (b"x-accel-buffering", b"no"))
        start = {"type": "http.response.start", "status": 200, "headers": list(headers)}
        if scope["state"].get("is_head", False):
            await send(start)
        else:
            has_begun = False
            try:
                async with self._validity:
                    await send(start)
                    has_begun = True
                    await run_unless(until_disconnected(receive), self.send_events(send), error=ClientDisconnected())
            except ClientDisconnected:
                set_result(scope, "abandoned")
                return
            except ServiceError as error:
                if not has_begun:
                    raise
                log.info("stream.ended", code=error.code)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send_events(self, send: Send) -> None:
        """Send events as they are committed, until the process stops."""

        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        await write(b"retry: %d\n\n" % RETRY_MILLISECONDS)
        # The final event of a generation ends its stream, also if its type is not asked for.
        read = self.chosen if self.chosen.generation_id is None else replace(self.chosen, status=None)
        paging = self.tail.pages(read, self.after, limit=_EVENTS_AT_ONCE, seconds=SECONDS_BETWEEN_COMMENTS)
        async with aclosing(paging) as pages:
            async for page in pages:
                if page.gap:
                    await write(b'event: gap\ndata: {"object": "gap"}\n\n')  # no id: the events after it have theirs
                events = [event for event in page.events if event.matches(self.chosen)]
                await write(b"".join(event.message for event in events) or b":\n\n")
                if read.generation_id is not None and any(it.transition.to_status.is_terminal for it in page.events):
                    return
