"""The routes of everything of Rivya's that is relayed: its own paths, and one model beside them."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from app.core.auth import Access
from app.gateway import calls, documents
from app.gateway.calls import Relayed
from app.gateway.closed import add_closed_paths
from app.gateway.gateway import Gateway

_Key = Annotated[str | None, Header(alias="Idempotency-Key", description="Forwarded; with it Rivya charges once.")]


def router(gateway: Gateway, access: Access) -> APIRouter:
    """All of them, each for the callers whose role reaches it."""
    routes = APIRouter(prefix="/api/v1", tags=["rivya"])
    _add_readings(routes, gateway, access)
    _add_creations(routes, gateway, access)
    add_closed_paths(routes, access)
    return routes


def _add_readings(routes: APIRouter, gateway: Gateway, access: Access) -> None:
    @routes.get(**_route(calls.MODELS, access), summary="List the models", responses=documents.MODELS)
    async def list_models(request: Request) -> Response:
        """Rivya's catalogue with categories, prices and inputs, kept for `RECEIVER_MODELS_TTL` seconds; see `Age`."""
        return await gateway.models(request)

    @routes.get(
        "/models/{model_id:path}",
        dependencies=[Depends(access.require(calls.MODELS.role))],
        summary="One model",
        response_model=None,
        responses=documents.MODEL,
    )
    async def get_model(model_id: str) -> Response:
        """One entry of the catalogue. Rivya has no such path; the receiver adds it."""
        return await gateway.model(model_id)

    @routes.get(**_route(calls.CREDITS, access), summary="The account's credits", responses=documents.CREDITS)
    async def get_credits(request: Request) -> Response:
        """What the account can spend at this moment; never kept."""
        return await gateway.credits(request)

    @routes.get(**_route(calls.GET_FILE, access), summary="One uploaded file", responses=documents.FILE)
    async def get_file(file_id: str, request: Request) -> Response:  # noqa: ARG001 - for the document
        """Rivya's answer, unchanged."""
        return gateway.pass_on(calls.GET_FILE, request)

    @routes.get(**_route(calls.LIST_SESSIONS, access), summary="List the chat sessions", responses=documents.SESSIONS)
    async def list_sessions(request: Request) -> Response:
        """Rivya's answer, unchanged; a query is passed on with it."""
        return gateway.pass_on(calls.LIST_SESSIONS, request)

    @routes.get(**_route(calls.GET_SESSION, access), summary="One chat session", responses=documents.SESSION)
    async def get_session(session_id: str, request: Request) -> Response:  # noqa: ARG001 - for the document
        """Rivya's answer, unchanged."""
        return gateway.pass_on(calls.GET_SESSION, request)


def _add_creations(routes: APIRouter, gateway: Gateway, access: Access) -> None:
    @routes.post(
        **_route(calls.UPLOAD_FILE, access),
        summary="Upload a file",
        responses=documents.UPLOADED,
        openapi_extra={"requestBody": documents.UPLOAD_BODY},
    )
    async def upload_file(request: Request) -> Response:
        """Passed through as it comes. Larger than Rivya takes (image and audio 10 MB, video 50 MB): 413, at once."""
        return gateway.pass_on(calls.UPLOAD_FILE, request)

    @routes.post(
        **_route(calls.COMPLETE, access),
        summary="A chat turn",
        responses=documents.COMPLETION,
        openapi_extra={"requestBody": documents.TURN_BODY},
    )
    async def complete(request: Request, idempotency_key: _Key = None) -> Response:  # noqa: ARG001 - for the document
        """Rivya's answer, unchanged. Hanging up cancels it at Rivya."""
        return gateway.pass_on(calls.COMPLETE, request)

    @routes.post(
        **_route(calls.STREAM, access),
        summary="A chat turn as a stream",
        responses=documents.EVENTS,
        openapi_extra={"requestBody": documents.TURN_BODY},
    )
    async def stream(request: Request, idempotency_key: _Key = None) -> Response:  # noqa: ARG001 - for the document
        """Rivya's server-sent events, byte by byte as they come. Hanging up cancels the turn at Rivya."""
        return gateway.pass_on(calls.STREAM, request)


def _route(relayed: Relayed, access: Access) -> dict[str, Any]:
    return {
        "path": relayed.path.removeprefix("/api/v1"),
        "dependencies": [Depends(access.require(relayed.role))],
        "response_model": None,
    }
