"""Keeps the event loop awake while an answer is about to come: to be woken costs more than to look again."""

import asyncio
from typing import Final

_SECONDS: Final = 0.005
"""No longer than a commit takes that is worth it: who waits for a slow or silent database is to sleep. Decision 92."""


class Awake:
    """A loop that has something to do in every turn, and so looks for news without waiting for them."""

    def __init__(self) -> None:
        self._until = 0.0
        self._is_turning = False

    def keep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Do not sleep for the next 5 ms."""
        self._until = loop.time() + _SECONDS
        if not self._is_turning:
            self._turn(loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_turning = loop.time() < self._until
        if self._is_turning:
            loop.call_soon(self._turn, loop)
