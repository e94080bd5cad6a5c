"""The event loop of the tests."""

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Any, Final

_LOOK: Final = 0.5
"""Seconds between looks whether the machine stood still."""
_STOOD_STILL: Final = 1.0
"""A look that comes so many seconds late means that it did: nothing of ours holds up the event loop for so long."""


class _Selector(selectors.DefaultSelector):
    """Waits as every selector does, in pieces, and keeps the time that has passed while this process could run."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self._now = now
        self._looked_at = now()
        self._stood_still = 0.0

    def time(self, *, waited: float = 0.0) -> float:
        """Seconds; `waited`: for so long this process meant to wait since the last look."""
        now = self._now()
        if (late := now - self._looked_at - waited) > _STOOD_STILL:
            self._stood_still += late
        self._looked_at = now
        return now - self._stood_still

    def skip(self, seconds: float) -> None:
        self._stood_still -= seconds

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        while True:
            self.time()
            piece = _LOOK if timeout is None else min(max(timeout, 0), _LOOK)
            ready = super().select(piece)
            self.time(waited=piece)
            timeout = None if timeout is None else timeout - piece
            if ready or (timeout is not None and timeout <= 0):
                return ready


class TidyLoop(asyncio.SelectorEventLoop):
    """Counts no time in which the machine stood still, and cuts, at its end, what a test's servers still have.

    A virtual machine may be stopped for seconds, and each time limit of 5 s would be over when it goes on.

    A connection may be accepted as its server stops. Nobody can wait for that one, and what is left open would fail the
    test in which the collector finds it. Connections that were opened from here stay as they are: to leave one open is
    a mistake that must show.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._clock = _Selector(now)
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.time()

    def pass_time(self, seconds: float) -> None:
        self._clock.skip(seconds)

    def close(self) -> None:
        if not self.is_closed():
            transports: list[Any] = list(self._transports.values())  # type: ignore[attr-defined] # asyncio's own list
            for transport in transports:
                if transport._server is not None:
                    transport.abort()
            self.run_until_complete(asyncio.sleep(0))
        super().close()


def pass_time(seconds: float) -> None:
    """Let so much time pass at once in the event loop of this test: what was to happen until then is due now.

    For time limits of what will not come: a short one might be over before what has to come first.
    """
    loop = asyncio.get_running_loop()
    assert isinstance(loop, TidyLoop)
    loop.pass_time(seconds)
