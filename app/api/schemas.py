"""The response models of the OpenAPI document with examples, the documented errors, and JSON responses."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import Route

from app.api.parameters import EventType
from app.core.records import json_body
from app.ledger.models import Outcome, Source, Status, Tracking

_FIRST_SEEN_AT = "2026-05-10T00:00:00.120Z"
_SETTLED = "2026-05-10T00:01:00.340Z"
_TRACKING: dict[str, Any] = {
    "state": "settled",
    "submitted_by": "shop",
    "client_request_id": "order-1",
    "settled_by": "webhook",
    "first_seen_at": _FIRST_SEEN_AT,
    "settled_at": _SETTLED,
    "callback_received_at": _SETTLED,
    "polls": 0,
}
_GENERATION: dict[str, Any] = {
    "id": "task_public_id",
    "status": "succeeded",
    "model": "z-image",
    "reserved_credits": 1,
    "final_credits": 1,
    "created_at": "2026-05-10T00:00:00.000Z",
    "updated_at": "2026-05-10T00:01:00.000Z",
    "result": {"primary_url": "https://media.example/result.png", "urls": ["https://media.example/result.png"]},
    "error": None,
    "metadata": {"customer": "c-42"},
    "tracking": _TRACKING,
}
_TRANSITION: dict[str, Any] = {
    "number": 2,
    "from": "processing",
    "to": "succeeded",
    "source": "webhook",
    "event_id": "evt_1",
    "occurred_at": "2026-05-10T00:01:00.000Z",
    "recorded_at": _SETTLED,
}
_EVENT: dict[str, Any] = {
    "id": "AAAAAAAAACow1c9Qm1-0Yxk4Zyw",
    "object": "event",
    "type": "generation.succeeded",
    "created_at": _SETTLED,
    "generation": _GENERATION,
    "transition": _TRANSITION,
}
_DELIVERY: dict[str, Any] = {
    "object": "delivery",
    "event_id": "evt_1",
    "event_type": "generation.succeeded",
    "generation_id": "task_public_id",
    "endpoint_id": "0196b9a4-3f00-7d0e-8a51-2f3b6c9d1e70",
    "received_at": _SETTLED,
    "outcome": "applied",
    "attempts": 1,
}
_EVIDENCE: dict[str, Any] = {
    **_DELIVERY,
    "headers": {"content-type": "application/json"},
    "body": '{"id":"evt_1"}',
    "body_base64": "eyJpZCI6ImV2dF8xIn0=",
}
_ERROR: dict[str, Any] = {"error": {"code": "not_found", "message": "No generation has this id.", "requestId": "req_1"}}


def _example(value: dict[str, Any], *, extra: Literal["allow", "ignore"] = "ignore") -> ConfigDict:
    return ConfigDict(json_schema_extra={"example": value}, extra=extra)


class TrackingOut(BaseModel):
    """The receiver's own state of a generation. Times are the receiver's."""

    model_config = _example(_TRACKING)

    state: Tracking = Field(
        description="watching: open; stalled: open past the horizon, polled rarely; lost: Rivya says that it does not "
        "exist; settled: its outcome is known"
    )
    submitted_by: str | None = Field(description="name of the token that submitted it; null: not submitted here")
    client_request_id: str | None = Field(description="the trace id it was submitted or tracked with")
    settled_by: Source | None
    first_seen_at: str
    settled_at: str | None
    callback_received_at: str | None = Field(description="when the first verified delivery about it came")
    polls: int
    next_poll_at: str | None = Field(description="null: it will not be polled")


class GenerationOut(BaseModel):
    """Rivya's object unchanged, plus `metadata` and `tracking`; a short answer of Rivya's lacks some members."""

    model_config = _example(_GENERATION, extra="allow")

    id: str
    status: Status
    model: str | None = None
    reserved_credits: float | None = None
    final_credits: float | None = None
    created_at: str | None = Field(None, description="Rivya's time")
    updated_at: str | None = Field(None, description="Rivya's time")
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    metadata: dict[str, Any] | None
    tracking: TrackingOut


class TransitionOut(BaseModel):
    """A status change that the receiver accepted."""

    model_config = _example(_TRANSITION)

    number: int
    from_status: Status | None = Field(alias="from", description="null: the first word of it")
    to_status: Status = Field(alias="to")
    source: Source
    event_id: str | None
    occurred_at: str | None = Field(description="Rivya's time")
    recorded_at: str


class EventOut(BaseModel):
    """A transition in the feed."""

    model_config = _example(_EVENT)

    id: str = Field(description="the cursor for what comes after it")
    object: Literal["event"]
    type: EventType
    created_at: str = Field(description="when the receiver recorded it")
    generation: GenerationOut = Field(description="as it was when the feed was read")
    transition: TransitionOut


class DeliveryOut(BaseModel):
    """A verified POST from Rivya."""

    model_config = _example(_DELIVERY)

    object: Literal["delivery"]
    event_id: str
    event_type: str | None
    generation_id: str | None
    endpoint_id: str | None = Field(description="of ours; null when it came to no endpoint's own path")
    received_at: str
    outcome: Outcome
    attempts: int = Field(description="how often this event came")
    body_pruned_at: str | None = Field(description="when its body was emptied for its age; null: it is there")


class EvidenceOut(DeliveryOut):
    """A delivery; `headers`, `body` and `body_base64` are there for the role admin only."""

    model_config = _example(_EVIDENCE)

    headers: dict[str, str] | None = Field(None, description="those that matter")
    body: str | None = Field(None, description="null where the bytes are not UTF-8")
    body_base64: str | None = None


class _ListOut(BaseModel):
    object: Literal["list"]
    next_cursor: str | None = Field(description="null: nothing follows")


class GenerationListOut(_ListOut):
    """Generations, newest first."""

    data: list[GenerationOut]


class MetadataChangeOut(BaseModel):
    """One change of a generation's metadata; the newest 100 are kept."""

    by: str | None = Field(description="name of the token")
    at: str
    sha256: str = Field(description="of the metadata as JSON, hex")


class TransitionListOut(_ListOut):
    """The history of a generation, oldest first."""

    data: list[TransitionOut]
    metadata_changes: list[MetadataChangeOut]


class EventListOut(BaseModel):
    """A page of the feed, oldest first."""

    object: Literal["list"]
    data: list[EventOut]
    next_cursor: str = Field(description="to go on from, also at the end")
    has_more: bool = Field(description="there may be more already")
    gap: bool = Field(description="something after the given cursor was removed, for its age or by an operator")


class DeliveryListOut(_ListOut):
    """Deliveries, newest first."""

    data: list[DeliveryOut]


class ErrorDetail(BaseModel):
    """`code` is the contract; new codes may appear."""

    code: str
    message: str
    requestId: str  # noqa: N815 - Rivya's spelling


class ErrorOut(BaseModel):
    """An error in Rivya's shape."""

    model_config = _example(_ERROR)

    error: ErrorDetail


def description() -> str:
    """The text at the head of the OpenAPI document, with the quickstart, which docs/api.md shows too."""
    quickstart = files("app.api").joinpath("quickstart.sh").read_text()
    return f"{_DESCRIPTION}## Quickstart\n\n```sh\n{quickstart}```\n"


_DESCRIPTION = (
    "Know the outcome of every Rivya generation: pushed when Rivya calls back, pulled when it does not.\n\n"
    "The paths and objects are Rivya's own; what Rivya lacks is added beside them. Send one of the receiver's tokens: "
    "`Authorization: Bearer <token>`. Roles: `read` lists and reads, `write` also submits and tracks, `admin` sees "
    "everything. Every error has Rivya's shape, and every answer an `X-Request-Id`.\n\n"
)
TAGS: list[dict[str, Any]] = [
    {"name": "generations", "description": "Submit, track, read and wait for generations."},
    {"name": "events", "description": "What happens to generations, in one order."},
    {"name": "webhooks", "description": "Rivya's webhooks API, served here, and what is sent to programs."},
    {"name": "usage", "description": "What callers submitted, and what it cost."},
    {
        "name": "rivya",
        "description": "Everything else of Rivya's, relayed: models, credits, files, chat. Status, JSON, error codes "
        "and `requestId` are Rivya's own.",
    },
    {"name": "deliveries", "description": "What Rivya delivered, as evidence."},
    {"name": "tokens", "description": "The tokens that programs call the receiver with."},
    {"name": "endpoint", "description": "The registration with Rivya."},
    {"name": "operations", "description": "Health and metrics; no token is needed."},
]

_TEXTS = {
    400: "`validation_failed`: names the parameter or member, and what would be right.",
    401: "`api_key_missing`, `api_key_invalid`: no token of the receiver's.",
    403: "`api_scope_denied`: the token's role does not reach that far.",
    404: "`not_found`",
    409: "`name_taken`, `token_revoked`, `still_open`: it conflicts with what is stored.",
    413: "`payload_too_large`",
    503: "`database_unavailable`, `overloaded`, `not_recorded`: nothing is wrong with the request; try again after "
    "`Retry-After` seconds.",
}


def errors(*statuses: int, also: dict[int | str, dict[str, Any]] | None = None) -> dict[int | str, dict[str, Any]]:
    """The documented errors of a route, as FastAPI's `responses`: `statuses`, 401, 403, 503, and any other."""
    named: dict[int | str, dict[str, Any]] = {
        status: _documented(_TEXTS[status]) for status in sorted({*statuses, 401, 403, 503})
    }
    return {**(also or {}), **named, "default": _documented("Any other error, in the same shape.")}


def _documented(description: str) -> dict[str, Any]:
    return {"model": ErrorOut, "description": description}


class JsonResponse(JSONResponse):
    """A response whose JSON ends with a newline."""

    def render(self, content: object) -> bytes:
        """The body."""
        return json_body(content)


def answer(content: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response with `content` as JSON. The documented models only describe it: they would cost time."""
    return JsonResponse(content, status_code=status, headers=headers)


def list_of(items: Sequence[Mapping[str, Any]], *, next_cursor: str | None = None) -> dict[str, Any]:
    """A list in Rivya's format, with the cursor of the next page."""
    return {"object": "list", "data": items, "next_cursor": next_cursor}


Schemas = dict[str, dict[str, Any]]


def complete(app: FastAPI) -> None:
    """Make `app` serve complete examples, and render its document once.

    FastAPI leaves out the nulls that a response has.
    """
    build = app.openapi

    def openapi() -> dict[str, Any]:
        is_built = app.openapi_schema is not None
        document = build()
        if not is_built:
            _complete(document.get("components", {}).get("schemas", {}))
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it
    rendered: list[bytes] = []

    async def document(_: Request) -> Response:
        if not rendered:
            rendered.append(json_body(app.openapi()))
        return Response(rendered[0], media_type="application/json")

    # Before FastAPI's own route, which renders the document for each request.
    app.router.routes.insert(0, Route(app.openapi_url or "", document))


def _complete(schemas: Schemas) -> None:
    for schema in schemas.values():
        for example in (schema.get("example"), *schema.get("examples", ())):
            _restore(example, schema, schemas)


def _restore(example: object, schema: dict[str, Any], schemas: Schemas) -> None:
    """Add null for each required member that the example lacks."""
    if not isinstance(example, dict):
        return
    for name in schema.get("required", ()):
        example.setdefault(name, None)
    for name, member in schema.get("properties", {}).items():
        value = example.get(name)
        for item in value if isinstance(value, list) else [value]:
            for inner in _referred(member, schemas):
                _restore(item, inner, schemas)


def _referred(member: dict[str, Any], schemas: Schemas) -> Iterator[dict[str, Any]]:
    for part in (member, member.get("items", {})):
        name = str(part.get("$ref", "")).rpartition("/")[2]
        if name in schemas:
            yield schemas[name]
