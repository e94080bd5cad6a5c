"""The routes of the relayed calls and their OpenAPI schemas: what Rivya documents, with room for further members."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.core.auth import Access
from app.core.bodies import describe_body
from app.gateway import upstream
from app.gateway.service import Gateway
from app.gateway.upstream import Relayed

_MODEL: dict[str, Any] = {
    "id": "z-image",
    "display_name": "Z-Image",
    "category": "image",
    "runtime": "async_task",
    "base_credits": 1,
    "api_status": "available",
}
_TURN: dict[str, Any] = {"model": "gpt-5-2-chat", "message": "Three names for a red fox, please."}
_COMPLETION: dict[str, Any] = {
    "id": "chatcmpl_1",
    "object": "chat.completion",
    "session_id": "chat_1",
    "model": "gpt-5-2-chat",
    "created_at": "2026-05-10T00:00:00.000Z",
    "message": {"id": "msg_1", "role": "assistant", "content": "Rusty, Ember, Todd."},
    "usage": {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12},
    "credits": {"reserved": 3, "final": 2},
}


def _example(value: dict[str, Any]) -> ConfigDict:
    return ConfigDict(extra="allow", json_schema_extra={"example": value})


class RivyaModel(BaseModel):
    """An entry of Rivya's catalogue; it has more members than these, and new ones may come."""

    model_config = _example(_MODEL)

    id: str
    display_name: str
    category: str = Field(description="image, video, audio or chat")
    runtime: str
    base_credits: float
    api_status: str = Field(description="available, coming_soon or studio_only")


class RivyaModels(BaseModel):
    """Rivya's catalogue."""

    model_config = _example({"object": "list", "data": [_MODEL]})

    object: Literal["list"]
    data: list[RivyaModel]


class RivyaCredits(BaseModel):
    """The credits that the account can spend."""

    model_config = _example({"current_credits": 123})

    current_credits: float


class RivyaFile(BaseModel):
    """An uploaded file; beyond these members Rivya documents nothing."""

    model_config = _example(
        {"file_id": "file_1", "url": "https://media.example/uploads/file_1", "duration_token": None}
    )

    file_id: str
    url: str
    duration_token: str | None = Field(None, description="for `params.referenceMediaItems[]`, video and audio")


class RivyaObject(BaseModel):
    """Rivya's answer, whose members are not documented."""

    model_config = ConfigDict(extra="allow")


class ChatTurn(BaseModel):
    """Rivya's body; forwarded byte for byte, members that are not listed here included."""

    model_config = _example(_TURN)

    model: str = Field(description="One of category chat of GET /api/v1/models.")
    message: str
    session_id: str | None = Field(None, description="Goes on with a session.")
    attachments: list[dict[str, str]] | None = Field(None, description='`[{"file_id": "…"}]` of POST /api/v1/files')
    enable_web_search: bool | None = None
    reasoning_effort: Literal["default", "minimal", "low", "medium", "high", "xhigh"] | None = None
    client_request_id: str | None = Field(None, max_length=128)


class ChatCompletion(BaseModel):
    """A complete chat turn."""

    model_config = _example(_COMPLETION)

    id: str
    object: str
    session_id: str
    model: str
    created_at: str
    message: dict[str, Any]
    usage: dict[str, Any] | None
    credits: dict[str, Any] | None


def _answered(model: type[BaseModel], description: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model, "description": f"{description} The status is Rivya's own and may be another 2xx."}}


_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events. Rivya does not document their names and data; they are passed on unchanged."
        " A connection that ends without the end of the answer means that Rivya broke off.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}

_UPLOAD_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file", "kind"],
                "properties": {
                    "kind": {
                        "type": "string",
                        "enum": ["image", "video", "audio"],
                        "description": "Sent before the file, a file that is too large is refused sooner.",
                    },
                    "file": {"type": "string", "format": "binary"},
                    "model": {"type": "string"},
                    "client_request_id": {"type": "string", "maxLength": 128},
                },
            }
        }
    },
}

_Key = Annotated[str | None, Header(alias="Idempotency-Key", description="Forwarded; with it Rivya charges once.")]


def router(gateway: Gateway, access: Access) -> APIRouter:
    """The router of the gateway; each route requires the role of its call."""
    routes = APIRouter(prefix="/api/v1", tags=["rivya"])
    _add_readings(routes, gateway, access)
    _add_creations(routes, gateway, access)
    return routes


def _add_readings(routes: APIRouter, gateway: Gateway, access: Access) -> None:
    @routes.get(
        **_route(upstream.MODELS, access),
        summary="List the models",
        responses=_answered(RivyaModels, "Rivya's catalogue."),
    )
    async def list_models(request: Request) -> Response:
        """Rivya's catalogue with categories, prices and inputs, cached for `RECEIVER_MODELS_TTL` seconds; see `Age`."""
        return await gateway.models(request)

    @routes.get(
        "/models/{model_id:path}",
        dependencies=[Depends(access.require(upstream.MODELS.role))],
        summary="One model",
        response_model=None,
        responses=_answered(RivyaModel, "One entry of it."),
    )
    async def get_model(model_id: str) -> Response:
        """One entry of the catalogue. Rivya has no such path; the receiver adds it."""
        return await gateway.model(model_id)

    @routes.get(
        **_route(upstream.CREDITS, access),
        summary="The account's credits",
        responses=_answered(RivyaCredits, "The balance."),
    )
    async def get_credits(request: Request) -> Response:
        """The credits that the account can spend now; never cached."""
        return await gateway.credits(request)

    @routes.get(
        **_route(upstream.GET_FILE, access), summary="One uploaded file", responses=_answered(RivyaFile, "The file.")
    )
    async def get_file(file_id: str, request: Request) -> Response:  # noqa: ARG001 - for the document
        """Rivya's answer, unchanged."""
        return await gateway.proxy(upstream.GET_FILE, request)

    @routes.get(
        **_route(upstream.LIST_SESSIONS, access),
        summary="List the chat sessions",
        responses=_answered(RivyaObject, "The sessions."),
    )
    async def list_sessions(request: Request) -> Response:
        """Rivya's answer, unchanged; the query is passed on to Rivya."""
        return await gateway.proxy(upstream.LIST_SESSIONS, request)

    @routes.get(
        **_route(upstream.GET_SESSION, access),
        summary="One chat session",
        responses=_answered(RivyaObject, "The session."),
    )
    async def get_session(session_id: str, request: Request) -> Response:  # noqa: ARG001 - for the document
        """Rivya's answer, unchanged."""
        return await gateway.proxy(upstream.GET_SESSION, request)


def _add_creations(routes: APIRouter, gateway: Gateway, access: Access) -> None:
    @routes.post(
        **_route(upstream.UPLOAD_FILE, access),
        summary="Upload a file",
        responses=_answered(RivyaFile, "Rivya took the file."),
        openapi_extra={"requestBody": _UPLOAD_BODY},
    )
    async def upload_file(request: Request) -> Response:
        """Relayed as it comes. A file larger than Rivya accepts (image and audio 10 MB, video 50 MB): 413, at once."""
        return await gateway.proxy(upstream.UPLOAD_FILE, request)

    @routes.post(
        **_route(upstream.COMPLETE, access),
        summary="A chat turn",
        responses=_answered(ChatCompletion, "The turn."),
        openapi_extra=describe_body(ChatTurn),
    )
    async def complete(request: Request, idempotency_key: _Key = None) -> Response:  # noqa: ARG001 - for the document
        """Rivya's answer, unchanged. Disconnecting cancels the turn at Rivya."""
        return await gateway.proxy(upstream.COMPLETE, request)

    @routes.post(
        **_route(upstream.STREAM, access),
        summary="A chat turn as a stream",
        responses=_EVENTS,
        openapi_extra=describe_body(ChatTurn),
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
