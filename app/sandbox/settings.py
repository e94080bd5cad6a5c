"""Every choice that Rivya's documentation leaves open, and the sandbox's own pace, as switches."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from app.sandbox.dialects import Dialect
from app.sandbox.envelope import Envelope
from app.sandbox.signing import Scheme


@dataclass
class SandboxSettings:
    """Changed in code or by `PATCH /sandbox/settings`; durations are seconds."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    speed: float = 1.0
    """Divides the models' durations; not those a request asks for itself."""
    create_status: int = 200
    """What a create is answered with, of generations and of endpoints."""
    short_create: bool = False
    """Answer a create without `final_credits` and timestamps."""
    echo_client_request_id: bool = False
    insufficient_credits_status: int = 402
    stream_dialect: Dialect = "named"
    stream_pause: float = 0.02
    """Between two events of a stream."""
    list_shape: Literal["list", "array"] = "list"
    webhook_events: Literal["events", "types"] = "events"
    """What `GET /webhook-events` lists: what happened, or which types there are."""
    delete_status: Literal[200, 204] = 200
    deleted_endpoints: Literal["gone", "revoked"] = "gone"
    url_rules: Literal["local", "strict"] = "local"
    """`strict` refuses what Rivya is documented to refuse; `local` lets http and this network's own addresses pass."""
    envelope: Envelope = "data"
    scheme: Scheme = field(default_factory=Scheme)
    test_type: str = "webhook.test"
    test_carries: Literal["message", "generation"] = "message"
    rotation_overlap: float = 0.0
    """How long deliveries are signed with the old secret too, where the family can carry two signatures."""
    rotation_lag: float = 0.0
    """How long after a rotation deliveries are still signed with the old secret alone."""
    delivery_timeout: float = 5.0
    retry_delays: tuple[float, ...] = (0.5, 2.0, 5.0)
    disable_after: int | None = None
    """Failed attempts in a row after which an endpoint is disabled; None: never."""
    reorder_seconds: float = 2.0
    """How long a held back delivery waits for another one to overtake it."""
