"""POST /api/v1/generations: Rivya's own path and body, forwarded without ever paying twice."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.requests import ClientDisconnect

from app.core.auth import Access, Caller, Role
from app.submission.create import MOST_BYTES, CreateInvalid, CreateTooLarge, read_create, read_key
from app.submission.documents import REQUEST_BODY, RESPONSES
from app.submission.reply import Reply
from app.submission.submitter import Submitter

_KEY = "Idempotency-Key"


def router(submitter: Submitter, access: Access) -> APIRouter:
    """The route, for callers that may write."""
    routes = APIRouter(prefix="/api/v1", tags=["generations"])

    @routes.post(
        "/generations",
        summary="Create a generation",
        response_model=None,
        responses=RESPONSES,
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    async def create_generation(
        request: Request,
        caller: Annotated[Caller, Depends(access.require(Role.WRITE))],
        idempotency_key: Annotated[  # noqa: ARG001 - for the document; repeated headers must not pass unseen
            str | None,
            Header(alias=_KEY, description="1 to 255 printable ASCII characters; made for you if you send none."),
        ] = None,
    ) -> Response:
        """Forward Rivya's body to Rivya and answer as Rivya did.

        The same key with the same body gets the first answer again; with another body, 409.
        """
        key = read_key(request.headers.getlist(_KEY)) or submitter.new_key()
        create = read_create(await _read_body(request))
        reply = await submitter.submit(create, key, submitted_by=caller.name)
        return _response(reply, key)

    return routes


async def _read_body(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > MOST_BYTES:
        raise CreateTooLarge
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                raise CreateTooLarge
    except ClientDisconnect:
        raise CreateInvalid("The body did not arrive whole.") from None
    return bytes(body)


def _response(reply: Reply, key: str) -> Response:
    headers = {_KEY: key}
    if reply.is_replay:
        headers["Idempotency-Replayed"] = "true"
    if reply.retry_after is not None:
        headers["Retry-After"] = str(reply.retry_after)
    return Response(reply.body, status_code=reply.status, headers=headers, media_type="application/json")
