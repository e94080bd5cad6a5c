"""The JSON objects of webhooks and notifications: Rivya's documented ones, and ours beside them."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator
from sqlalchemy import RowMapping

from app.ledger.serializers import format_time
from app.notifications.models import RIVYAS_TYPES, EventType, NotificationState, Subscription

_Text = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]
# Without references, which the schema of a body that FastAPI does not read could not resolve.
_Type = Annotated[EventType, WithJsonSchema({"type": "string", "enum": list(EventType)})]
_State = Annotated[NotificationState, WithJsonSchema({"type": "string", "enum": list(NotificationState)})]
_Types = Annotated[list[_Type], Field(min_length=1, max_length=20)]
_Url = Annotated[str, Field(min_length=1, max_length=2048)]

_ENDPOINT: Final[dict[str, Any]] = {
    "id": "whend_0123456789abcdef01234567",
    "object": "webhook_endpoint",
    "name": "Production webhook",
    "url": "https://example.com/rivya/webhook",
    "event_types": ["generation.succeeded", "generation.failed"],
    "status": "active",
    "secret_preview": "whsec_12...abc123",
    "last_success_at": None,
    "last_failure_at": None,
    "failure_count": 0,
    "created_at": "2026-05-11T00:00:00.000Z",
    "updated_at": "2026-05-11T00:00:00.000Z",
    "disabled_at": None,
    "revoked_at": None,
    "model": None,
    "submitted_by": None,
    "token": "shop",
}
_ATTEMPT: Final[dict[str, Any]] = {"at": "2026-05-11T00:00:05.000Z", "status": 200, "error": None, "milliseconds": 84}
_NOTIFICATION: Final[dict[str, Any]] = {
    "id": "0196b9a4-3f00-7d0e-8a51-2f3b6c9d1e70",
    "object": "notification",
    "endpoint_id": "whend_0123456789abcdef01234567",
    "url": None,
    "token": "shop",
    "event_id": "evt_0123456789abcdef01234567",
    "event_type": "generation.succeeded",
    "generation_id": "task_1",
    "status": "delivered",
    "attempts": [_ATTEMPT],
    "next_attempt_at": None,
    "error": None,
    "created_at": "2026-05-11T00:00:05.000Z",
    "ended_at": "2026-05-11T00:00:05.000Z",
}
_DELIVERY: Final[dict[str, Any]] = {
    "id": "0196b9a4-3f00-7d0e-8a51-2f3b6c9d1e70",
    "object": "webhook_delivery",
    "endpoint_id": "whend_0123456789abcdef01234567",
    "event_id": "evt_0123456789abcdef01234567",
    "event_type": "generation.succeeded",
    "status": "succeeded",
    "attempts": 1,
    "response_status": 200,
    "error": None,
    "created_at": "2026-05-11T00:00:05.000Z",
    "last_attempt_at": "2026-05-11T00:00:05.000Z",
}


class _Filters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: _Text | None = Field(None, description="Only generations of this model.")
    submitted_by: _Text | None = Field(None, description="Only generations that this token submitted.")

    @field_validator("event_types", check_fields=False)
    @classmethod
    def _unique(cls, value: list[EventType]) -> list[EventType]:
        return list(dict.fromkeys(value))


class CreateWebhook(_Filters):
    """A new endpoint. `model`, `submitted_by` and the types that Rivya lacks are additions of the receiver."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {name: _ENDPOINT[name] for name in ("name", "url", "event_types")}},
    )

    name: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    url: _Url
    event_types: _Types = Field([*RIVYAS_TYPES], description="`receiver.alarm` is for the role admin.")


class ChangeWebhook(_Filters):
    """A change of an endpoint; what it does not name stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"status": "paused"}})

    name: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    url: _Url = ""
    event_types: _Types = Field([*RIVYAS_TYPES], description="`receiver.alarm` is for the role admin.")
    status: Literal["active", "paused", "disabled"] = Field(
        "active", description="Events for an endpoint that is not active are held for two days."
    )


class ResendMany(BaseModel):
    """Which notifications of an endpoint are sent again."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"since": "2026-05-10T00:00:00Z"}})

    since: datetime | None = Field(None, description="Written at this time or later.")
    until: datetime | None = Field(None, description="Written before this time.")
    status: _State = NotificationState.DEAD

    @field_validator("since", "until")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("must have its offset, like 2026-05-10T00:00:00Z")
        return value


class NotificationParameters(BaseModel):
    """Of GET /api/v1/notifications."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=200, description="How many at most.")
    cursor: _Text | None = Field(None, description="`next_cursor` of the answer before.")
    endpoint_id: _Text | None = None
    status: NotificationState | None = None
    generation_id: _Text | None = None


class WebhookOut(BaseModel):
    """A program's endpoint, as Rivya shows one; `model`, `submitted_by` and `token` are additions."""

    model_config = ConfigDict(json_schema_extra={"example": _ENDPOINT})

    id: str
    object: Literal["webhook_endpoint"]
    name: str
    url: str
    event_types: list[EventType]
    status: Literal["active", "paused", "disabled"]
    secret_preview: str
    last_success_at: datetime | None
    last_failure_at: datetime | None
    failure_count: int = Field(description="in a row")
    created_at: datetime
    updated_at: datetime
    disabled_at: datetime | None
    revoked_at: datetime | None
    model: str | None
    submitted_by: str | None
    token: str = Field(description="name of the token that it belongs to")


class NewWebhookOut(WebhookOut):
    """An endpoint with its new secret, which is shown this once."""

    model_config = ConfigDict(json_schema_extra={"example": {**_ENDPOINT, "signing_secret": "whsec_…"}})

    signing_secret: str


class WebhookListOut(BaseModel):
    """All endpoints that the token reaches, oldest first."""

    object: Literal["list"]
    data: list[WebhookOut]


class DeletedOut(BaseModel):
    """What a deletion answers."""

    id: str
    object: Literal["webhook_endpoint"]
    deleted: Literal[True]


class WebhookEventOut(BaseModel):
    """An event that an endpoint can ask for."""

    type: EventType
    object: Literal["webhook_event_type"]


class WebhookEventListOut(BaseModel):
    """The events that an endpoint can ask for."""

    object: Literal["list"]
    data: list[WebhookEventOut]


class WebhookDeliveryOut(BaseModel):
    """What became of one event for one endpoint."""

    model_config = ConfigDict(json_schema_extra={"example": _DELIVERY})

    id: str
    object: Literal["webhook_delivery"]
    endpoint_id: str
    event_id: str
    event_type: str
    status: Literal["pending", "succeeded", "failed", "abandoned"]
    attempts: int
    response_status: int | None
    error: str | None
    created_at: datetime
    last_attempt_at: datetime | None


class WebhookDeliveryListOut(BaseModel):
    """Newest first."""

    object: Literal["list"]
    data: list[WebhookDeliveryOut]
    next_cursor: str | None


class AttemptOut(BaseModel):
    """One attempt."""

    at: datetime
    status: int | None = Field(description="of the answer; null: there was none")
    error: str | None
    milliseconds: int
    excerpt: str | None = Field(None, description="The beginning of the answer; for the role admin only.")


class NotificationOut(BaseModel):
    """One event for one receiver, with the newest attempts to send it."""

    model_config = ConfigDict(json_schema_extra={"example": _NOTIFICATION})

    id: str
    object: Literal["notification"]
    endpoint_id: str | None = Field(description="null: a callback of one job")
    url: str | None = Field(description="of a callback of one job")
    token: str
    event_id: str
    event_type: str
    generation_id: str | None
    status: NotificationState
    attempts: list[AttemptOut]
    next_attempt_at: datetime | None
    error: str | None = Field(description="of the last attempt, or why it ended")
    created_at: datetime
    ended_at: datetime | None


class NotificationListOut(BaseModel):
    """Newest first."""

    object: Literal["list"]
    data: list[NotificationOut]
    next_cursor: str | None


class ResentOut(BaseModel):
    """How many are sent again; 10,000 at most in one call."""

    object: Literal["resend"]
    count: int


class CallbackSecretOut(BaseModel):
    """The secret that signs the callbacks of a token's jobs."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"object": "callback_secret", "signing_secret": "whsec_0123456789abcdef"}}
    )

    object: Literal["callback_secret"]
    signing_secret: str


def render_webhook(subscription: Subscription, *, secret: str | None = None) -> dict[str, Any]:
    """The endpoint as a JSON object; with its secret only where that is new."""
    it = subscription
    return {
        "id": it.id,
        "object": "webhook_endpoint",
        "name": it.name,
        "url": it.url,
        "event_types": it.event_types,
        "status": it.status,
        "secret_preview": it.secret_preview,
        **({} if secret is None else {"signing_secret": secret}),
        "last_success_at": format_time(it.last_success_at),
        "last_failure_at": format_time(it.last_failure_at),
        "failure_count": it.failure_count,
        "created_at": format_time(it.created_at),
        "updated_at": format_time(it.updated_at),
        "disabled_at": format_time(it.disabled_at),
        "revoked_at": format_time(it.revoked_at),
        "model": it.model,
        "submitted_by": it.submitted_by,
        "token": it.token,
    }


def render_notification(row: RowMapping, *, is_admin: bool) -> dict[str, Any]:
    """A row of `notifications` as a JSON object."""
    shows_answers = is_admin and row["subscription_id"] is not None
    return {
        "id": row["id"],
        "object": "notification",
        "endpoint_id": row["subscription_id"],
        "url": row["callback_url"],
        **{name: row[name] for name in ("token", "event_id", "event_type", "generation_id")},
        "status": row["state"],
        "attempts": [_attempt(entry, shows_answer=shows_answers) for entry in orjson.loads(row["attempt_log"])],
        "next_attempt_at": format_time(row["next_attempt_at"]),
        "error": row["error"],
        "created_at": format_time(row["created_at"]),
        "ended_at": format_time(row["ended_at"]),
    }


_DELIVERY_WORDS: Final = {
    NotificationState.PENDING: "pending",
    NotificationState.HELD: "pending",
    NotificationState.DELIVERED: "succeeded",
    NotificationState.DEAD: "failed",
    NotificationState.CANCELED: "abandoned",
}


def render_delivery(row: RowMapping) -> dict[str, Any]:
    """A row of `notifications` as Rivya might show a delivery."""
    attempts = orjson.loads(row["attempt_log"])
    return {
        "id": row["id"],
        "object": "webhook_delivery",
        "endpoint_id": row["subscription_id"],
        "event_id": row["event_id"],
        "event_type": row["event_type"],
        "status": _DELIVERY_WORDS[NotificationState(row["state"])],
        "attempts": len(attempts),
        "response_status": row["response_status"],
        "error": row["error"],
        "created_at": format_time(row["created_at"]),
        "last_attempt_at": format_time(datetime.fromisoformat(attempts[-1]["at"])) if attempts else None,
    }


def _attempt(entry: dict[str, Any], *, shows_answer: bool) -> dict[str, Any]:
    members = {"at": format_time(datetime.fromisoformat(entry["at"])), "status": entry["status"]}
    members |= {"error": entry["error"], "milliseconds": entry["milliseconds"]}
    return {**members, "excerpt": entry["excerpt"] if shows_answer else None}
