"""The one source of time: UTC moments for what is stored, monotonic seconds for what is measured."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time; tests pass one that they move by hand."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds that only ever grow, from an arbitrary start."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that only ever grow, from an arbitrary start."""
        return time.monotonic()
