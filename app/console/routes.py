"""All routes of the console, in their order."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from fastapi import APIRouter, Request, Response

from app.console import audit, overview, sign_in, stream, usage
from app.console.deliveries import DeliveryPages
from app.console.endpoint import EndpointPages
from app.console.generations import CategoryOf, GenerationPages
from app.console.overview import Overview
from app.console.pages import Console
from app.console.sign_in import FailedSignIns
from app.console.tokens import TokenPages
from app.console.webhooks import WebhookPages
from app.core.auth import Role
from app.core.clock import Clock
from app.core.errors import NotFound
from app.endpoint.keyring import Keyring
from app.endpoint.reachability import Reachability
from app.endpoint.service import EndpointCommands, EndpointQueries, Orphans
from app.gateway.service import Gateway
from app.intake.rejections import Rejections
from app.ledger.feed import FeedTail
from app.ledger.queries import Queries
from app.notifications.repository import NotificationRepository
from app.notifications.service import Webhooks
from app.operations.commands import GenerationCommands
from app.operations.replay import Replay
from app.submission.store import SubmissionRepository
from app.tokens.service import Tokens
from app.tokens.sessions import SessionEnded
from app.tokens.spending import Spending

_SECTIONS: Final = ("endpoint", "notifications", "tokens", "webhooks")
"""Pages whose forms are sent to addresses below them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What pages read from and act through: the same parts as the API's routes."""

    queries: Queries
    submissions: SubmissionRepository
    category_of: CategoryOf
    commands: GenerationCommands
    replay: Replay
    rejections: Rejections
    endpoint_queries: EndpointQueries
    endpoint_commands: EndpointCommands
    reachability: Reachability
    orphans: Orphans
    keyring: Keyring
    secret_overlap: timedelta
    tokens: Tokens
    spending: Spending
    webhooks: Webhooks
    notifications: NotificationRepository
    clock: Clock


def router(
    console: Console,
    failed_sign_ins: FailedSignIns,
    *,
    overview_page: Overview,
    gateway: Gateway,
    tail: FeedTail,
    parts: Parts,
) -> APIRouter:
    """The routes."""
    routes = APIRouter(include_in_schema=False)
    for part in (
        sign_in.router(console, failed_sign_ins),
        overview.router(console, overview_page, gateway, parts.notifications),
        audit.router(console),
        stream.router(console, tail),
        *_pages(console, parts),
    ):
        routes.include_router(part)
    routes.include_router(_rest(console))
    return routes


def _pages(console: Console, parts: Parts) -> tuple[APIRouter, ...]:
    queries, replay, clock = parts.queries, parts.replay, parts.clock
    return (
        GenerationPages(
            console,
            queries,
            submissions=parts.submissions,
            notifications=parts.notifications,
            category_of=parts.category_of,
            commands=parts.commands,
            replay=replay,
        ).router(),
        DeliveryPages(console, queries, replay=replay, rejections=parts.rejections).router(),
        EndpointPages(
            console,
            parts.endpoint_queries,
            parts.endpoint_commands,
            reachability=parts.reachability,
            orphans=parts.orphans,
            keyring=parts.keyring,
            secret_overlap=parts.secret_overlap,
            clock=clock,
        ).router(),
        usage.router(console, queries, clock=clock),
        TokenPages(console, parts.tokens, parts.spending, clock=clock).router(),
        WebhookPages(console, parts.webhooks, parts.notifications).router(),
    )


def _rest(console: Console) -> APIRouter:
    routes = console.router()

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
