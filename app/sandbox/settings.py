"""Settings for everything that Rivya's documentation leaves open, and the body of a delivery that they choose."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import orjson

from app.sandbox.clock import Clock, Scheduler
from app.sandbox.faults import Faults
from app.sandbox.signing import Scheme

Dialect = Literal["named", "chunks", "crlf"]
"""`named`: events with names; `chunks`: deltas and a closing `[DONE]`; `crlf`: ids, several data lines, `\\r\\n`."""
Envelope = Literal["data", "data.object", "data.generation", "generation", "object"]
"""The member in which the body of a delivery has the object."""
API_VERSION = "2026-05-11"


@dataclass
class SandboxSettings:
    """Changed in code or by `PATCH /sandbox/settings`; durations are in seconds."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    speed: float = 1.0
    """Divides the models' durations, but not those that a request asks for."""
    create_status: int = 200
    """The status of the response to a create, of generations, files and endpoints."""
    short_create: bool = False
    """The response to a create lacks `final_credits` and the timestamps."""
    echo_client_request_id: bool = False
    insufficient_credits_status: int = 402
    stream_dialect: Dialect = "named"
    stream_pause: float = 0.02
    """Between two events of a stream."""
    list_shape: Literal["list", "array"] = "list"
    webhook_events: Literal["events", "types"] = "events"
    """The kind of objects that `GET /webhook-events` lists: events, or event types."""
    delete_status: Literal[200, 204] = 200
    deleted_endpoints: Literal["gone", "revoked"] = "gone"
    url_rules: Literal["local", "strict"] = "local"
    """`strict` refuses what Rivya is documented to refuse; `local` also allows http and addresses of this network."""
    envelope: Envelope = "data"
    scheme: Scheme = field(default_factory=Scheme)
    test_type: str = "webhook.test"
    test_carries: Literal["message", "generation"] = "message"
    rotation_overlap: float = 0.0
    """How long the old secret signs too after a rotation, where the family can carry two signatures."""
    rotation_lag: float = 0.0
    """How long only the old secret signs after a rotation."""
    delivery_timeout: float = 5.0
    retry_delays: tuple[float, ...] = (0.5, 2.0, 5.0)
    disable_after: int | None = None
    """Failed attempts in a row that disable an endpoint; None: never."""
    reorder_seconds: float = 2.0
    """The longest time that a delivery is held back for `reorder`."""


@dataclass(frozen=True)
class Context:
    """The objects that all parts of one sandbox share; each log keeps its newest `keep` entries."""

    settings: SandboxSettings
    faults: Faults
    clock: Clock
    scheduler: Scheduler
    keep: int


def wrap(head: dict[str, Any], carried: dict[str, Any], envelope: Envelope) -> bytes:
    """The body of a delivery as JSON; `head` is id, type, api_version and created_at."""
    body: dict[str, Any] = carried
    for member in reversed(envelope.split(".")):
        body = {member: body}
    return orjson.dumps({**head, **body})
