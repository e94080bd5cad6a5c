"""Which calls were made: counted per route for ever, kept one by one up to a bound."""

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from app.sandbox.clock import Clock, stamp
from app.sandbox.faults import ApiFault


@dataclass
class Called:
    """One call; `status` stays None where no answer went back."""

    route: str
    method: str
    path: str
    wall: str
    monotonic: float
    idempotency_key: str | None = None
    status: int | None = None
    fault: ApiFault | None = None
    """What befell it."""


class Calls:
    """The log of all calls of the public API."""

    def __init__(self, clock: Clock, keep: int) -> None:
        self._clock = clock
        self.counts: Counter[str] = Counter()
        self.recent: deque[Called] = deque(maxlen=keep)

    def note(self, route: str, *, method: str, path: str, idempotency_key: str | None) -> Called:
        """Write a call down as it arrives."""
        called = Called(route, method, path, self.now()["wall"], self._clock.monotonic(), idempotency_key)
        self.counts[route] += 1
        self.recent.append(called)
        return called

    def now(self) -> dict[str, Any]:
        """The present, on both clocks."""
        return {"wall": stamp(self._clock.now()), "monotonic": self._clock.monotonic()}

    def of(self, route: str) -> list[Called]:
        """The kept calls of one route, oldest first."""
        return [called for called in self.recent if called.route == route]
