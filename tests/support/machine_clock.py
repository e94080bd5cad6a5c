"""A machine whose clock can be set, and the clock that a process on it goes by."""

from app.core.clock import SystemClock
from tests.support.clock import NOON


class Machine:
    def __init__(self) -> None:
        self.wall = NOON.timestamp()
        self.elapsed = 1000.0
        self.clock = SystemClock(wall=lambda: self.wall, elapsed=lambda: self.elapsed)

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.elapsed += seconds

    def step(self, seconds: float) -> None:
        """Somebody sets the clock; no time passes."""
        self.wall += seconds
