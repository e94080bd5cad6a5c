"""The credits that Rivya last told of, and how long ago that was, as metrics."""

import math

from prometheus_client import Gauge

from app.core.clock import Clock
from app.rivya.errors import PayloadUnreadable
from app.rivya.payloads import read_credits

CREDITS = Gauge("receiver_rivya_credits", "Credits of the account when they were last asked for; NaN before that.")
AGE = Gauge("receiver_rivya_credits_age_seconds", "Time since the credits were last told; NaN before that.")


class Balance:
    """Remembers the last balance for the metrics, and for nothing else: callers always get Rivya's own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told_at: float | None = None
        CREDITS.set(math.nan)
        AGE.set_function(self._age)

    def note(self, body: bytes) -> None:
        """Rivya answered with this; what can't be read changes nothing."""
        try:
            CREDITS.set(float(read_credits(body)))
        except PayloadUnreadable:
            return
        self._told_at = self._clock.monotonic()

    def _age(self) -> float:
        return math.nan if self._told_at is None else self._clock.monotonic() - self._told_at
