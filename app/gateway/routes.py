"""The routes of the relayed calls, and a route for one model."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from app.core.auth import Access
from app.gateway import schemas, upstream
from app.gateway.service import Gateway
from app.gateway.upstream import Relayed

_Key = Annotated[str | None, Header(alias="Idempotency-Key", description="Forwarded; with it Rivya charges once.")]


def router(gateway: Gateway, access: Access) -> APIRouter:
    """The router of the gateway; each route requires the role of its call."""
    routes = APIRouter(prefix="/api/v1", tags=["rivya"])
    _add_readings(routes, gateway, access)
    _add_creations(routes, gateway, access)
    return routes


def _add_readings(routes: APIRouter, gateway: Gateway, access: Access) -> None:
    @routes.get(**_route(upstream.MODELS, access), summary="List the models", responses=schemas.MODELS)
    async def list_models(request: Request) -> Response:
        """Rivya's catalogue with categories, prices and inputs, cached for `RECEIVER_MODELS_TTL` seconds; see `Age`."""
        return await gateway.models(request)

    @routes.get(
        "/models/{model_id:path}",
        dependencies=[Depends(access.require(upstream.MODELS.role))],
        summary="One model",
        response_model=None,
        responses=schemas.MODEL,
    )
    async def get_model(model_id: str) -> Response:
        """One entry of the catalogue. Rivya has no such path; the receiver adds it."""
        return await gateway.model(model_id)

    @routes.get(**_route(upstream.CREDITS, access), summary="The account's credits", responses=schemas.CREDITS)
    async def get_credits(request: Request) -> Response:
        """The credits that the account can spend now; never cached."""
        return await gateway.credits(request)

    @routes.get(**_route(upstream.GET_FILE, access), summary="One uploaded file", responses=schemas.FILE)
    async def get_file(file_id: str, request: Request) -> Response:  # noqa: ARG001 - for the document
        """Rivya's answer, unchanged."""
        return await gateway.proxy(upstream.GET_FILE, request)

    @routes.get(**_route(upstream.LIST_SESSIONS, access), summary="List the chat sessions", responses=schemas.SESSIONS)
    async def list_sessions(request: Request) -> Response:
        """Rivya's answer, unchanged; the query is passed on to Rivya."""
        return await gateway.proxy(upstream.LIST_SESSIONS, request)

    @routes.get(**_route(upstream.GET_SESSION, access), summary="One chat session", responses=schemas.SESSION)
    async def get_session(session_id: str, request: Request) -> Response:  # noqa: ARG001 - for the document
        """Rivya's answer, unchanged."""
        return await gateway.proxy(upstream.GET_SESSION, request)


def _add_creations(routes: APIRouter, gateway: Gateway, access: Access) -> None:
    @routes.post(
        **_route(upstream.UPLOAD_FILE, access),
        summary="Upload a file",
        responses=schemas.UPLOADED,
        openapi_extra={"requestBody": schemas.UPLOAD_BODY},
    )
    async def upload_file(request: Request) -> Response:
        """Relayed as it comes. A file larger than Rivya accepts (image and audio 10 MB, video 50 MB): 413, at once."""
        return await gateway.proxy(upstream.UPLOAD_FILE, request)

    @routes.post(
        **_route(upstream.COMPLETE, access),
        summary="A chat turn",
        responses=schemas.COMPLETION,
        openapi_extra={"requestBody": schemas.TURN_BODY},
    )
    async def complete(request: Request, idempotency_key: _Key = None) -> Response:  # noqa: ARG001 - for the document
        """Rivya's answer, unchanged. Disconnecting cancels the turn at Rivya."""
        return await gateway.proxy(upstream.COMPLETE, request)

    @routes.post(
        **_route(upstream.STREAM, access),
        summary="A chat turn as a stream",
        responses=schemas.EVENTS,
        openapi_extra={"requestBody": schemas.TURN_BODY},
    )
    async def stream(request: Request, idempotency_key: _Key = None) -> Response:  # noqa: ARG001 - for the document
        """Rivya's server-sent events, unchanged and at once. Disconnecting cancels the turn at Rivya."""
        return await gateway.proxy(upstream.STREAM, request)


def _route(relayed: Relayed, access: Access) -> dict[str, Any]:
    return {
        "path": relayed.path.removeprefix("/api/v1").replace("}", ":path}"),  # an id may contain slashes
        "dependencies": [Depends(access.require(relayed.role))],
        "response_model": None,
    }
