"""How the sandbox misbehaves: what goes wrong with deliveries, and what goes wrong with calls."""

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

from app.sandbox.altering import Alteration


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
