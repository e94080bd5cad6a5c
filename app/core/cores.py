"""Whether the cores are crowded: how long this thread was ready to run while others had its core, as Linux tells it."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

Told = tuple[int, int]
"""Nanoseconds that a thread ran, and that it was ready to run and had no core."""

_SECONDS_BETWEEN_LOOKS: Final = 0.1
_CROWDED: Final = 0.2
"""Of the time that a thread could have used: it had to wait for so much of it, or more. `docs/decisions.md`, 91."""
_WEIGHT: Final = 0.15
"""Of the last look against those before it: one moment in which somebody else was busy is no crowd."""
_HARDLY_BUSY: Final = 0.1
"""Of all time: who could not even have used that tells nothing by waiting."""


def told_by_linux() -> Told | None:
    """Of this thread, since its beginning; None where the system does not tell."""
    try:
        ran, waited, _ = Path("/proc/thread-self/schedstat").read_bytes().split()
        return int(ran), int(waited)
    except (OSError, ValueError):
        return None


class Cores:
    """As the last second was for the thread that asks; never crowded where the system does not tell."""

    def __init__(self, told: Callable[[], Told | None] = told_by_linux) -> None:
        self._told = told
        self._seen: tuple[float, Told] | None = None
        self._share_waited = 0.0

    def are_crowded(self, now: float) -> bool:
        """`now` in seconds that only ever grow; looks ten times a second at most."""
        if self._seen is None or now >= self._seen[0] + _SECONDS_BETWEEN_LOOKS:
            self._look(now)
        return self._share_waited >= _CROWDED

    def _look(self, now: float) -> None:
        told = self._told()
        if told is None:
            self._share_waited = 0.0
            return
        if self._seen is not None:
            at, (ran_before, waited_before) = self._seen
            ran, waited = told[0] - ran_before, told[1] - waited_before
            if ran + waited >= (now - at) * 1e9 * _HARDLY_BUSY:
                self._share_waited += (waited / (ran + waited) - self._share_waited) * _WEIGHT
        self._seen = (now, told)
