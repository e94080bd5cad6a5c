"""The answers about our endpoint: never its secret, and its full path for an admin only."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.endpoint.models import Endpoint, State, masked
from app.endpoint.repository import StoredSecret
from app.rivya.endpoint_payload import WebhookEndpoint

_EXAMPLE: dict[str, JsonValue] = {
    "object": "endpoint",
    "id": "0196b9a4-3f00-7d0e-8a51-2f3b6c9d1e70",
    "rivya_id": "whend_5f2c9a",
    "url": "https://receiver.example.com/rivya/webhook/kJ3x****",
    "state": "serving",
    "scheme": "timestamped;signature=rivya-signature;encoding=hex;key=whole",
    "proven_at": "2026-05-11T00:00:01Z",
    "proven_by": "evt_6b1f",
    "other_scheme_count": 0,
    "rotation": "none",
    "created_at": "2026-05-11T00:00:00Z",
    "last_verified_at": "2026-05-11T00:05:00Z",
    "refusals": 0,
    "failure_count": 0,
    "last_success_at": "2026-05-11T00:05:00Z",
    "secret_count": 1,
    "secrets": [{"valid_from": "2026-05-11T00:00:00Z", "valid_until": None, "proven_at": "2026-05-11T00:00:01Z"}],
}
_ENTRY_EXAMPLE: dict[str, JsonValue] = {
    "endpoint_id": "0196b9a4-3f00-7d0e-8a51-2f3b6c9d1e70",
    "recorded_at": "2026-05-11T00:00:01Z",
    "event": "proven",
    "detail": "evt_6b1f",
}
_REACHABILITY_EXAMPLE: dict[str, JsonValue] = {
    "object": "endpoint_test",
    "ok": True,
    "checks": [{"name": "public_url", "ok": True, "detail": "leads to this receiver"}],
}


class SecretView(BaseModel):
    """When a signing secret is valid; never the secret itself."""

    model_config = ConfigDict(from_attributes=True)

    valid_from: datetime
    valid_until: datetime | None = Field(description="null: until it is replaced")
    proven_at: datetime | None = Field(description="the first delivery that it verified")


class EndpointView(BaseModel):
    """The endpoint that Rivya delivers to."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    object: Literal["endpoint"] = "endpoint"
    id: str | None = Field(description="ours; null for an endpoint made by hand")
    rivya_id: str | None = Field(description="Rivya's, once it is known")
    url: str | None = Field(description="where Rivya delivers; its secret end is shown to admin only")
    state: Literal["intended", "created", "proven", "serving", "retiring", "retired", "manual"] = Field(
        description="manual: RIVYA_SIGNING_SECRET was given, and nothing is registered"
    )
    scheme: str | None = Field(
        description="how deliveries are verified: family, header names, encoding, key form; null until one proves it"
    )
    proven_at: datetime | None = Field(description="when the scheme was proven; null where a setting gives it")
    proven_by: str | None = Field(description="the event whose delivery proved it")
    other_scheme: str | None = Field(description="what refused deliveries proved while another scheme was pinned")
    other_scheme_count: int
    rotation: Literal["none", "requested", "in_doubt"] = Field(
        description="in_doubt: a new secret was asked for, and is not stored yet"
    )
    created_at: datetime | None
    last_verified_at: datetime | None = Field(description="the last delivery that was verified at its path")
    last_refused_at: datetime | None = Field(description="the last delivery that was refused at its path")
    refusals: int = Field(description="at its path, since the last verified delivery")
    last_error: str | None = Field(description="the code with which the last call to Rivya about it failed")
    failure_count: int = Field(description="failed deliveries, as Rivya counts them")
    last_success_at: datetime | None = Field(description="as Rivya says")
    last_failure_at: datetime | None = Field(description="as Rivya says")
    secret_count: int = Field(description="how many signing secrets are accepted now, of endpoints replaced included")
    secrets: list[SecretView]

    @classmethod
    def of(cls, endpoint: Endpoint, secrets: Sequence[StoredSecret], *, scheme: str | None, shows_path: bool) -> Self:
        """The endpoint, with the secrets that are valid now."""
        is_manual = endpoint.state is State.MANUAL
        values = {name: getattr(endpoint, name) for name in cls.model_fields if hasattr(endpoint, name)}
        if is_manual:
            values |= {"id": None, "url": None, "created_at": None}
        elif not shows_path:
            values["url"] = masked(endpoint.url, endpoint.path_key)
        values |= {
            "state": endpoint.state.value,
            "scheme": scheme,
            "secret_count": 1 if is_manual else len(secrets),
            "secrets": secrets,
        }
        return cls.model_validate(values)

    @classmethod
    def from_setting(cls, *, scheme: str | None, now: datetime) -> Self:
        """The view with RIVYA_SIGNING_SECRET set, before a delivery has proved a scheme."""
        unknown = Endpoint(id="", path_key="", url="", rivya_id=None, state=State.MANUAL, created_at=now)
        return cls.of(unknown, [], scheme=scheme, shows_path=False)


class EntryView(BaseModel):
    """One step, repair or observation in the history of our endpoints."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [_ENTRY_EXAMPLE]})

    endpoint_id: str
    recorded_at: datetime
    event: str = Field(description="a state it reached, or what was done about it")
    detail: str | None = Field(description="a code, an event id or a scheme")


class HistoryView(BaseModel):
    """The newest 200 entries, newest first."""

    object: Literal["list"] = "list"
    data: list[EntryView]


class CheckView(BaseModel):
    """One check, its result, and what to do about it."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    ok: bool
    detail: str


class ReachabilityView(BaseModel):
    """Whether Rivya can reach us."""

    model_config = ConfigDict(json_schema_extra={"examples": [_REACHABILITY_EXAMPLE]})

    object: Literal["endpoint_test"] = "endpoint_test"
    ok: bool
    checks: list[CheckView]


class OrphanView(BaseModel):
    """An endpoint at Rivya with our name and host that this database does not know."""

    object: Literal["endpoint_orphan"] = "endpoint_orphan"
    id: str = Field(description="Rivya's")
    name: str | None
    url: str = Field(description="the secret end of its path is hidden")
    status: str | None
    created_at: datetime | None

    @classmethod
    def of(cls, orphan: WebhookEndpoint) -> Self:
        """What is shown of `orphan`, its URL masked."""
        url = masked(orphan.url, orphan.url.rstrip("/").rpartition("/")[2])
        return cls(id=orphan.id, name=orphan.name, url=url, status=orphan.status, created_at=orphan.created_at)


class OrphansView(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[OrphanView]
