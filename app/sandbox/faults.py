"""Faults that can be switched on: of deliveries, of calls and of streams."""

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import Field
from starlette.responses import Response

Alteration = Literal["truncated", "not_utf8", "wrong_type", "unknown_members", "nulls", "huge_numbers"]
HUGE = b"1" + b"0" * 40
_CONFIG = {"extra": "forbid", "allow_inf_nan": False}
_NOT_NEGATIVE = Field(ge=0)


@dataclass
class DeliveryFaults:
    """The faults of an event's deliveries; by default there is none."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    drop: bool = False
    """It is not sent."""
    delay: Annotated[float, _NOT_NEGATIVE] = 0.0
    """Seconds by which it is sent later."""
    duplicate: Annotated[int, _NOT_NEGATIVE] = 0
    """Further copies of the same event."""
    reorder: bool = False
    """It is held back until another event's delivery has been sent."""
    forge: bool = False
    """It is signed with a secret that nobody has."""
    contradict: bool = False
    """A second, properly signed event follows that reports the opposite."""
    early: bool = False
    """The generation ends, and its callback is sent, before its create is answered."""
    skew: float = 0.0
    """Seconds that are added to the signed timestamp; negative is in the past."""
    corrupt: bool = False
    """The body is altered after signing."""
    only: str = "*"
    """Glob of the event types that are affected."""
    times: int | None = None
    """How many events are affected; None: all."""


@dataclass
class ApiFault:
    """A fault of calls; `when="after"` does the work first and then replaces the answer."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    route: str = "*"
    """Glob of route names, such as `generations.get` or `webhooks.*`."""
    times: int | None = None
    """How many calls are affected; None: all."""
    when: Literal["before", "after"] = "before"
    hang: float = 0.0
    """Seconds to wait; without a status or a connection fault, the true answer follows."""
    connection: Literal["reset", "hang_up"] | None = None
    status: int | None = None
    code: str | None = None
    """The error code; None: the documented one for the status."""
    retry_after: str | int | None = None
    body: Literal["error", "garbage", "empty"] = "error"
    alter: Alteration | None = None
    """Without a status or a connection fault: the true answer, its body altered."""


@dataclass
class StreamFault:
    """A fault of a stream, before its event number `after`, counted from 0."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    after: int = 1
    pause: float = 0.0
    """Seconds of silence."""
    heartbeats: int = 0
    """Comments sent before the silence."""
    connection: Literal["reset", "hang_up"] | None = None
    times: int | None = None
    """How many streams are affected; None: all."""


@dataclass
class Faults:
    """All faults that are switched on."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG
    deliveries: DeliveryFaults = field(default_factory=DeliveryFaults)
    api: list[ApiFault] = field(default_factory=list)
    stream: StreamFault | None = None

    def clear(self) -> None:
        """Remove all faults."""
        self.deliveries, self.api, self.stream = DeliveryFaults(), [], None

    def take_api(self, route: str) -> ApiFault | None:
        """The first fault that applies to this call; counts the use."""
        fault = next((fault for fault in self.api if fnmatchcase(route, fault.route)), None)
        if fault is not None and _is_last_use(fault):
            self.api.remove(fault)
        return fault

    def take_stream(self) -> StreamFault | None:
        """The fault of the next stream; counts the use."""
        fault = self.stream
        if fault is not None and _is_last_use(fault):
            self.stream = None
        return fault

    def take_delivery(self, event_type: str) -> DeliveryFaults:
        """A copy of the faults of this event's deliveries; counts the use."""
        faults = self.deliveries
        if not fnmatchcase(event_type, faults.only):
            return DeliveryFaults()
        if _is_last_use(faults):
            self.deliveries = DeliveryFaults()
        return replace(faults)


def _is_last_use(fault: DeliveryFaults | ApiFault | StreamFault) -> bool:
    if fault.times is None:
        return False
    fault.times -= 1
    return fault.times <= 0


def mutate_response(response: Response, alteration: Alteration) -> Response:
    """The same status with its body altered; `wrong_type` leaves the body and calls it HTML."""
    media_type = "text/html" if alteration == "wrong_type" else "application/json"
    return Response(_mutate(bytes(response.body), alteration), response.status_code, media_type=media_type)


def _mutate(body: bytes, alteration: Alteration) -> bytes:
    content = orjson.loads(body or b"null")
    match alteration:
        case "truncated":
            return body[: len(body) // 2]
        case "not_utf8":
            return body[:1] + b'"\xff\xfe": 1, ' + body[1:]
        case "unknown_members" if isinstance(content, dict):
            return orjson.dumps({**content, "unheard_of": {"deep": [None, {"x": "\ufffd"}]}})
        case "nulls":
            return orjson.dumps(dict.fromkeys(content) if isinstance(content, dict) else None)
        case "huge_numbers":
            return body[:1] + b'"huge": ' + HUGE + b", " + body[1:]
        case _:
            return body
