"""Our endpoint as callers see it: never its secret, and its path only as far as their role allows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.endpoint.acts import Endpoint
from app.endpoint.callback_url import masked
from app.endpoint.registry import StoredSecret

_EXAMPLE: dict[str, JsonValue] = {
    "object": "endpoint",
    "id": "0196b9a4-3f00-7d0e-8a51-2f3b6c9d1e70",
    "rivya_id": "whend_5f2c9a",
    "url": "https://receiver.example.com/rivya/webhook/kJ3x****",
    "state": "serving",
    "scheme": "timestamped;signature=rivya-signature;encoding=any;key=whole",
    "created_at": "2026-05-11T00:00:00Z",
    "last_verified_at": "2026-05-11T00:05:00Z",
    "last_refused_at": None,
    "refusals": 0,
    "last_error": None,
    "secret_count": 1,
    "secrets": [{"valid_from": "2026-05-11T00:00:00Z", "valid_until": None}],
}


class SecretView(BaseModel):
    """When a signing secret is accepted; the secret itself is never told."""

    valid_from: datetime
    valid_until: datetime | None = Field(description="null: until it is replaced")


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
    scheme: str = Field(description="how deliveries are verified")
    created_at: datetime | None
    last_verified_at: datetime | None = Field(description="the last delivery that was verified at its path")
    last_refused_at: datetime | None = Field(description="the last delivery that was refused at its path")
    refusals: int = Field(description="at its path, since the last verified delivery")
    last_error: str | None = Field(description="the code with which the last call to Rivya about it failed")
    secret_count: int = Field(description="how many signing secrets are accepted now, of endpoints replaced included")
    secrets: list[SecretView]

    @classmethod
    def of(cls, endpoint: Endpoint, secrets: Sequence[StoredSecret], *, scheme: str, shows_path: bool) -> Self:
        """The endpoint, with the secrets that are valid now."""
        return cls(
            id=endpoint.id,
            rivya_id=endpoint.rivya_id,
            url=endpoint.url if shows_path else masked(endpoint.url, endpoint.path_key),
            state=endpoint.state.value,
            scheme=scheme,
            created_at=endpoint.created_at,
            last_verified_at=endpoint.last_verified_at,
            last_refused_at=endpoint.last_refused_at,
            refusals=endpoint.refusals,
            last_error=endpoint.last_error,
            secret_count=len(secrets),
            secrets=[SecretView(valid_from=secret.valid_from, valid_until=secret.valid_until) for secret in secrets],
        )

    @classmethod
    def made_by_hand(cls, *, scheme: str) -> Self:
        """What is known when RIVYA_SIGNING_SECRET was given."""
        return cls(
            id=None,
            rivya_id=None,
            url=None,
            state="manual",
            scheme=scheme,
            created_at=None,
            last_verified_at=None,
            last_refused_at=None,
            refusals=0,
            last_error=None,
            secret_count=1,
            secrets=[],
        )
