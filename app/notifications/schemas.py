"""The JSON objects of webhooks and notifications: Rivya's documented ones, and ours beside them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema, field_validator
from sqlalchemy import RowMapping

from app.ledger.serializers import format_time
from app.notifications.models import RIVYAS_TYPES, EventType, NotificationState, Subscription
from app.notifications.repository import NotificationFilter

_Text = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]
# Without references, which the schema of a body that FastAPI does not read could not resolve.
_Type = Annotated[EventType, WithJsonSchema({"type": "string", "enum": list(EventType)})]
_State = Annotated[NotificationState, WithJsonSchema({"type": "string", "enum": list(NotificationState)})]
_Types = Annotated[list[_Type], Field(min_length=1, max_length=20)]
Time = Annotated[
    datetime, PlainSerializer(format_time, return_type=str), WithJsonSchema({"type": "string", "format": "date-time"})
]
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


class CreateWebhook(BaseModel):
    """A new endpoint. `model`, `submitted_by` and the types that Rivya lacks are additions of the receiver."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {name: _ENDPOINT[name] for name in ("name", "url", "event_types")}},
    )

    model: _Text | None = Field(None, description="Only generations of this model.")
    submitted_by: _Text | None = Field(None, description="Only generations that this token submitted.")
    name: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    url: _Url
    event_types: _Types = Field([*RIVYAS_TYPES], description="`receiver.alarm` is for the role admin.")

    @field_validator("event_types")
    @classmethod
    def _unique(cls, value: list[EventType]) -> list[EventType]:
        return list(dict.fromkeys(value))


class ChangeWebhook(CreateWebhook):
    """A change of an endpoint; what it does not name stays."""

    model_config = ConfigDict(json_schema_extra={"example": {"status": "paused"}})

    url: _Url = ""
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

    def chosen(self, *, token: str | None) -> NotificationFilter:
        """The filter for the query, within what belongs to `token`."""
        return NotificationFilter(
            token=token, endpoint_id=self.endpoint_id, state=self.status, generation_id=self.generation_id
        )


class _Out(BaseModel):
    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class WebhookOut(_Out):
    """A program's endpoint, as Rivya shows one; `model`, `submitted_by` and `token` are additions."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": _ENDPOINT})

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    name: str
    url: str
    event_types: list[EventType]
    status: Literal["active", "paused", "disabled"]
    secret_preview: str
    last_success_at: Time | None
    last_failure_at: Time | None
    failure_count: int = Field(description="in a row")
    created_at: Time
    updated_at: Time
    disabled_at: Time | None
    revoked_at: Time | None
    model: str | None
    submitted_by: str | None
    token: str = Field(description="name of the token that it belongs to")


class NewWebhookOut(WebhookOut):
    """An endpoint with its new secret, which is shown this once."""

    model_config = ConfigDict(json_schema_extra={"example": {**_ENDPOINT, "signing_secret": "whsec_…"}})

    signing_secret: str

    @classmethod
    def of(cls, subscription: Subscription, secret: str) -> "NewWebhookOut":
        """The endpoint with this secret."""
        return cls(**WebhookOut.model_validate(subscription).model_dump(), signing_secret=secret)


class WebhookListOut(_Out):
    """All endpoints that the token reaches, oldest first."""

    object: Literal["list"] = "list"
    data: list[WebhookOut]


class DeletedOut(_Out):
    """What a deletion answers."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    deleted: Literal[True] = True


class WebhookEventOut(_Out):
    """An event that an endpoint can ask for."""

    type: EventType
    object: Literal["webhook_event_type"] = "webhook_event_type"


class WebhookEventListOut(_Out):
    """The events that an endpoint can ask for."""

    object: Literal["list"] = "list"
    data: list[WebhookEventOut]


_DELIVERY_WORDS: Final[Mapping[NotificationState, Literal["pending", "succeeded", "failed", "abandoned"]]] = {
    NotificationState.PENDING: "pending",
    NotificationState.HELD: "pending",
    NotificationState.DELIVERED: "succeeded",
    NotificationState.DEAD: "failed",
    NotificationState.CANCELED: "abandoned",
}


class WebhookDeliveryOut(_Out):
    """What became of one event for one endpoint."""

    model_config = ConfigDict(json_schema_extra={"example": _DELIVERY})

    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    endpoint_id: str
    event_id: str
    event_type: str
    status: Literal["pending", "succeeded", "failed", "abandoned"]
    attempts: int
    response_status: int | None
    error: str | None
    created_at: Time
    last_attempt_at: Time | None

    @classmethod
    def of(cls, row: RowMapping) -> "WebhookDeliveryOut":
        """A row of `notifications` as Rivya might show a delivery."""
        attempts = orjson.loads(row["attempt_log"])
        return cls(
            endpoint_id=row["subscription_id"],
            status=_DELIVERY_WORDS[NotificationState(row["state"])],
            attempts=len(attempts),
            last_attempt_at=attempts[-1]["at"] if attempts else None,
            **{name: row[name] for name in ("id", "event_id", "event_type", "response_status", "error", "created_at")},
        )


class WebhookDeliveryListOut(_Out):
    """Newest first."""

    object: Literal["list"] = "list"
    data: list[WebhookDeliveryOut]
    next_cursor: str | None


class AttemptOut(BaseModel):
    """One attempt."""

    at: Time
    status: int | None = Field(description="of the answer; null: there was none")
    error: str | None
    milliseconds: int
    excerpt: str | None = Field(None, description="The beginning of the answer; for the role admin only.")


_COPIED: Final = (
    *("id", "token", "event_id", "event_type", "generation_id", "next_attempt_at", "error", "created_at", "ended_at"),
)


class NotificationOut(_Out):
    """One event for one receiver, with the newest attempts to send it."""

    model_config = ConfigDict(json_schema_extra={"example": _NOTIFICATION})

    id: str
    object: Literal["notification"] = "notification"
    endpoint_id: str | None = Field(description="null: a callback of one job")
    url: str | None = Field(description="of a callback of one job")
    token: str
    event_id: str
    event_type: str
    generation_id: str | None
    status: NotificationState
    attempts: list[AttemptOut]
    next_attempt_at: Time | None
    error: str | None = Field(description="of the last attempt, or why it ended")
    created_at: Time
    ended_at: Time | None

    @classmethod
    def of(cls, row: RowMapping, *, is_admin: bool) -> "NotificationOut":
        """A row of `notifications`; what receivers answered is shown to an admin, and never of a callback."""
        attempts = [AttemptOut(**entry) for entry in orjson.loads(row["attempt_log"])]
        if not is_admin or row["subscription_id"] is None:
            attempts = [attempt.model_copy(update={"excerpt": None}) for attempt in attempts]
        return cls(
            endpoint_id=row["subscription_id"],
            url=row["callback_url"],
            status=row["state"],
            attempts=attempts,
            **{name: row[name] for name in _COPIED},
        )


class NotificationListOut(_Out):
    """Newest first."""

    object: Literal["list"] = "list"
    data: list[NotificationOut]
    next_cursor: str | None


class ResentOut(_Out):
    """How many are sent again; 10,000 at most in one call."""

    object: Literal["resend"] = "resend"
    count: int


class CallbackSecretOut(_Out):
    """The secret that signs the callbacks of a token's jobs."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"object": "callback_secret", "signing_secret": "whsec_0123456789abcdef"}}
    )

    object: Literal["callback_secret"] = "callback_secret"
    signing_secret: str
