"""How many calls may be under way to Rivya at once; whoever finds all taken is told to come back."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge

from app.core.errors import Overloaded

UNDER_WAY = Gauge("receiver_rivya_calls_under_way", "Relayed calls that are under way to Rivya.")


class Slots:
    """The room for relayed calls of one process."""

    def __init__(self, most: int) -> None:
        self._free = most

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold one of them. Raises `Overloaded` at once when there is none: a queue would only hide the load."""
        if self._free <= 0:
            raise Overloaded("Too many calls to Rivya are under way; see RECEIVER_RIVYA_CONCURRENCY.")
        self._free -= 1
        UNDER_WAY.inc()
        try:
            yield
        finally:
            self._free += 1
            UNDER_WAY.dec()
