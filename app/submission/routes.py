"""POST /api/v1/generations: forwards a create to Rivya; with the same Idempotency-Key it is paid once."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.core.auth import Access, Caller, Role
from app.core.bodies import describe_body, read_body
from app.core.middleware import traceparent
from app.ledger.callbacks import Callbacks
from app.submission.models import MOST_BYTES, Reply, read_callback_url, read_create, read_key
from app.submission.service import SubmissionService

_KEY = "Idempotency-Key"
_CALLBACK_URL = "Receiver-Callback-Url"


def router(
    service: SubmissionService,
    access: Access,
    callbacks: Callbacks,
    *,
    created: type[BaseModel],
    error: type[BaseModel],
) -> APIRouter:
    """The router with the route, for callers with the role `write`; `created` and `error` describe its answers."""
    routes = APIRouter(prefix="/api/v1", tags=["generations"])

    @routes.post(
        "/generations",
        summary="Create a generation",
        response_model=None,
        responses=_responses(created, error),
        openapi_extra=describe_body(CreateGeneration),
    )
    async def create_generation(
        request: Request,
        caller: Annotated[Caller, Depends(access.require(Role.WRITE))],
        idempotency_key: Annotated[  # noqa: ARG001 - for OpenAPI; repeated headers are read below
            str | None,
            Header(alias=_KEY, description="1 to 255 printable ASCII characters; made for you if you send none."),
        ] = None,
        receiver_callback_url: Annotated[  # noqa: ARG001 - as above
            str | None,
            Header(
                alias=_CALLBACK_URL,
                description="Called once with the final event, signed with the secret of GET /api/v1/callback-secret; "
                "not sent to Rivya.",
            ),
        ] = None,
    ) -> Response:
        """Forward Rivya's body to Rivya and answer as Rivya did.

        The same key with the same body and callback URL gets the first answer again; with others, 409.
        """
        key = read_key(request.headers.getlist(_KEY)) or service.new_key()
        callback_url = read_callback_url(request.headers.getlist(_CALLBACK_URL))
        body = await read_body(request.scope, request.receive, most_bytes=MOST_BYTES)
        create = replace(read_create(body, callback_url=callback_url), traceparent=traceparent(request.scope))
        if callback_url is not None:
            await callbacks.check(callback_url)
        async with access.while_valid(caller):  # what was sent goes on without its caller
            reply = await service.submit(create, key, request.state.caller)
        return _response(reply, key)

    return routes


def _response(reply: Reply, key: str) -> Response:
    headers = {_KEY: key}
    if reply.is_replay:
        headers["Idempotency-Replayed"] = "true"
    if reply.retry_after is not None:
        headers["Retry-After"] = str(reply.retry_after)
    return Response(reply.body, status_code=reply.status, headers=headers, media_type="application/json")


# The OpenAPI description of a create: Rivya's documented body, and the answers.


_REQUEST: dict[str, Any] = {
    "model": "z-image",
    "prompt": "A lighthouse in the fog",
    "params": {"aspectRatio": "1:1"},
    "client_request_id": "order-1",
}


class CreateGeneration(BaseModel):
    """Rivya's body, forwarded with members that are not listed here; byte for byte if it has no `metadata`."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"example": _REQUEST})

    model: str = Field(min_length=1, description="One of GET /api/v1/models.")
    prompt: str | None = None
    params: dict[str, Any] | None = Field(None, description="Depends on the model.")
    client_request_id: str | None = Field(None, min_length=1, max_length=500, description="Your own trace id.")
    metadata: dict[str, Any] | None = Field(
        None, description="Any object of yours, at most 16 KiB as JSON; stored with the generation, not sent to Rivya."
    )


def _documented(description: str, model: type[BaseModel]) -> dict[str, Any]:
    headers = {
        "Idempotency-Key": {
            "description": "The key it was sent with: yours, or the one that was made for it.",
            "schema": {"type": "string"},
        },
        "Idempotency-Replayed": {
            "description": "`true` when this is the answer that the same create got before.",
            "schema": {"type": "string"},
        },
    }
    return {"model": model, "description": description, "headers": headers}


def _responses(created: type[BaseModel], error: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    accepted = "Rivya accepted it. The status is Rivya's own and may be another 2xx."
    errors = {status: _documented(text, error) for status, text in _ERRORS.items()}
    return {200: _documented(accepted, created), **errors, "2XX": _documented("Rivya accepted it.", created)}


_ERRORS: dict[int | str, str] = {
    400: "The body or a header can't be used (`webhook_url_rejected`, `callback_not_configured`), or Rivya says so.",
    401: "No valid token, or Rivya does not accept the receiver's key.",
    403: "The token's role does not reach that far, or the receiver's key lacks the scope.",
    409: "`idempotency_conflict`: the key was used with another body.",
    410: "`idempotency_key_expired`: the key was used before, and its answer is no longer kept. Nothing was sent.",
    413: "`payload_too_large`: more than 1 MiB.",
    429: "Rivya asks to wait. The same key sends it again.",
    503: "`rivya_unreachable`, `not_recorded`, `database_unavailable`, `overloaded`, or Rivya's own. Repeat it with "
    "the same key.",
    504: "`submission_unknown`: no usable answer came. It is resolved in the background with the same key.",
    "4XX": "Rivya refused it: its status, code, message and requestId.",
    "5XX": "Rivya failed: its status, code and requestId. The same key sends it again.",
}
