"""Reads by id, grouped: what is asked for during one query goes into the next, and the same generation is one row."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from app.core.errors import DatabaseUnavailable
from app.ledger.models import Generation

Found = Mapping[str, Generation]
ReadByIds = Callable[[Sequence[str]], Awaitable[Found]]

_MOST_AT_ONCE = 2


class SharedReads:
    """Only a read that has not begun is joined: what it finds is never older than the question."""

    def __init__(self, read: ReadByIds, *, most_at_once: int = _MOST_AT_ONCE) -> None:
        self._read = read
        self._most_at_once = most_at_once
        """Queries under way: one of them returns while the other is being planned and read."""
        self._ids: set[str] = set()
        self._answer: asyncio.Future[Found] | None = None
        """Of the group that is forming."""
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def generation(self, generation_id: str) -> Generation | None:
        """The generation as it is now; None if it isn't known. Raises what the read raises."""
        # Shielded: one caller that gives up must not take the others' answer away.
        return (await asyncio.shield(self.ask(generation_id))).get(generation_id)

    def ask(self, generation_id: str) -> "asyncio.Future[Found]":
        """What the group finds that this generation is read with; shared, and not to be cancelled."""
        self._ids.add(generation_id)
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            self._answer.add_done_callback(_seen)
            if self._under_way < self._most_at_once:
                self._under_way += 1
                task = asyncio.create_task(self._run(), name="shared-read")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return self._answer

    async def _run(self) -> None:
        """Read one group after another, as long as there are any."""
        while self._answer is not None:
            ids, answer, self._ids, self._answer = sorted(self._ids), self._answer, set(), None
            try:
                found = await self._read(ids)
            except Exception as error:  # noqa: BLE001 - it is theirs who asked
                answer.set_exception(error)
            except asyncio.CancelledError:  # of the query, or of us at the very end: nobody is to wait for ever
                answer.set_exception(DatabaseUnavailable())
            else:
                answer.set_result(found)
            del answer  # else it would hold itself, by the traceback of the error that it holds
        self._under_way -= 1  # in the same step as the last look: who asks from now on begins anew


def _seen(answer: "asyncio.Future[Found]") -> None:
    if not answer.cancelled():
        answer.exception()  # seen: should everybody have given up, nobody else will fetch it
