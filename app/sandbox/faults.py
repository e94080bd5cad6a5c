"""How the sandbox misbehaves: what goes wrong with deliveries, and what goes wrong with calls."""

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, get_args

import orjson
from starlette.responses import Response

# Alters an answer that was true: what a client has to bear from a Rivya that changes, or that breaks in the midst.


Alteration = Literal["truncated", "not_utf8", "wrong_type", "unknown_members", "nulls", "huge_numbers"]
ALTERATIONS: tuple[Alteration, ...] = get_args(Alteration)
HUGE = b"1" + b"0" * 40


def mutate_response(response: Response, how: Alteration) -> Response:
    """The same status with its body altered; `wrong_type` leaves the body and calls it HTML."""
    body, kind = bytes(response.body), "text/html" if how == "wrong_type" else "application/json"
    return Response(_altered(body, how), response.status_code, media_type=kind)


def _altered(body: bytes, how: Alteration) -> bytes:
    match how:
        case "truncated":
            return body[: len(body) // 2]
        case "not_utf8":
            return body[:1] + b'"\xff\xfe": 1, ' + body[1:]
        case "unknown_members":
            return _with_members(body, {"unheard_of": {"deep": [None, {"x": "\ufffd"}]}})
        case "nulls":
            return orjson.dumps(_nulled(orjson.loads(body or b"null")))
        case "huge_numbers":
            return body[:1] + b'"huge": ' + HUGE + b", " + body[1:]
        case "wrong_type":
            return body


def _with_members(body: bytes, members: dict[str, Any]) -> bytes:
    content = orjson.loads(body or b"null")
    return orjson.dumps({**content, **members}) if isinstance(content, dict) else body


def _nulled(content: object) -> object:
    return dict.fromkeys(content) if isinstance(content, dict) else None


@dataclass
class DeliveryFaults:
    """What goes wrong with the deliveries of an event; the default is nothing."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    drop: bool = False
    delay: float = 0.0
    duplicate: int = 0
    """Further copies of the same event."""
    reorder: bool = False
    """Held back until another event's delivery has overtaken it."""
    forge: bool = False
    """Signed with a secret that nobody has."""
    contradict: bool = False
    """Followed by a second, properly signed event that says the opposite."""
    early: bool = False
    """The generation ends, and its callback is sent, before its create is answered."""
    skew: float = 0.0
    """Seconds by which the signed timestamp is off; negative is in the past."""
    corrupt: bool = False
    """The body is altered after signing."""
    only: str = "*"
    """Glob of the event types that suffer."""
    times: int | None = None
    """How many events suffer; None: all, until told otherwise."""


@dataclass
class ApiFault:
    """What goes wrong with calls; `when="after"` does the work first and only then spoils the answer."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    route: str = "*"
    """Glob of route names, such as `generations.get` or `webhooks.*`."""
    times: int | None = None
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
    """What goes wrong in the midst of a stream, before its event number `after`, counted from 0."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    after: int = 1
    pause: float = 0.0
    """Seconds of silence."""
    heartbeats: int = 0
    """Comments sent before the silence."""
    connection: Literal["reset", "hang_up"] | None = None
    times: int | None = None


@dataclass
class Faults:
    """Everything that goes wrong at the moment."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    deliveries: DeliveryFaults = field(default_factory=DeliveryFaults)
    api: list[ApiFault] = field(default_factory=list)
    stream: StreamFault | None = None

    def clear(self) -> None:
        """Behave again."""
        self.deliveries = DeliveryFaults()
        self.api = []
        self.stream = None

    def take_api(self, route: str) -> ApiFault | None:
        """The first fault that this call suffers, counted."""
        for fault in self.api:
            if fnmatchcase(route, fault.route):
                self._count_down(fault)
                return fault
        return None

    def take_stream(self) -> StreamFault | None:
        """What the next stream suffers, counted."""
        fault = self.stream
        if fault is not None and fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self.stream = None
        return fault

    def take_delivery(self, event_type: str) -> DeliveryFaults:
        """What this event's deliveries suffer, counted."""
        faults = self.deliveries
        if not fnmatchcase(event_type, faults.only):
            return DeliveryFaults()
        if faults.times is not None:
            faults.times -= 1
            if faults.times <= 0:
                self.deliveries = DeliveryFaults()
        return replace(faults)

    def _count_down(self, fault: ApiFault) -> None:
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self.api.remove(fault)
