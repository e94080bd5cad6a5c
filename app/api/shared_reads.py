"""Reads asked for at the same moment become one statement, and those for the same generation one row."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from app.ledger.state import Generation

ReadByIds = Callable[[Sequence[str]], Awaitable[dict[str, Generation]]]


class SharedReads:
    """Only a read that has not begun is joined: what it finds is never older than the question."""

    def __init__(self, read: ReadByIds) -> None:
        self._read = read
        self._forming: set[str] = set()
        self._task: asyncio.Task[dict[str, Generation]] | None = None

    async def generation(self, generation_id: str) -> Generation | None:
        """The generation as it is now; None if it isn't known. Raises what the read raises."""
        self._forming.add(generation_id)
        if self._task is None:
            self._task = asyncio.create_task(self._begin(), name="shared-read")
            self._task.add_done_callback(_seen)
        # Shielded: one caller that gives up must not take the others' answer away.
        return (await asyncio.shield(self._task)).get(generation_id)

    async def _begin(self) -> dict[str, Generation]:
        ids, self._forming, self._task = sorted(self._forming), set(), None
        return await self._read(ids)


def _seen(task: asyncio.Task[dict[str, Generation]]) -> None:
    if not task.cancelled():
        task.exception()  # seen: should everybody have given up, nobody else will fetch it
