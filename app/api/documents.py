"""What the OpenAPI document says of the answers: models with examples, and the errors of each route."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.ledger.models import Outcome, Source, Status, Tracking

_SEEN = "2026-05-10T00:00:00.120Z"
_SETTLED = "2026-05-10T00:01:00.340Z"
_TRACKING: dict[str, Any] = {
    "state": "settled",
    "submitted_by": "shop",
    "client_request_id": "order-1",
    "settled_by": "webhook",
    "first_seen_at": _SEEN,
    "settled_at": _SETTLED,
    "callback_received_at": _SETTLED,
    "polls": 0,
    "next_poll_at": None,
}
_GENERATION: dict[str, Any] = {
    "id": "task_public_id",
    "status": "succeeded",
    "model": "z-image",
    "reserved_credits": 1,
    "final_credits": 1,
    "created_at": "2026-05-10T00:00:00.000Z",
    "updated_at": "2026-05-10T00:01:00.000Z",
    "result": {
        "primary_url": "https://media.example/result.png",
        "urls": ["https://media.example/result.png"],
    },
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
_DELIVERY: dict[str, Any] = {
    "object": "delivery",
    "event_id": "evt_1",
    "event_type": "generation.succeeded",
    "generation_id": "task_public_id",
    "endpoint_id": "0196b9a4-3f00-7d0e-8a51-2f3b6c9d1e70",
    "received_at": _SETTLED,
    "outcome": "applied",
    "attempts": 1,
    "body_pruned_at": None,
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
    """What the receiver knows and does about a generation. Times are the receiver's."""

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


class TransitionListOut(_ListOut):
    """The history of a generation, oldest first."""

    data: list[TransitionOut]


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
