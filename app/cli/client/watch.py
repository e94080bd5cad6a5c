"""Waits for a generation's outcome by long polls, through restarts and refusals that pass by themselves."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TextIO

from app.cli.client.http import CallFailed, Receiver, segment, unanswered
from app.cli.client.output import plain

# One line that tells what is being waited for: rewritten each second on a terminal, else written when it changes.


_SECONDS = 1.0
_CLEAR = "\r\x1b[K"


class Progress:
    """Tells on `out`; `now` gives seconds on any clock that only goes forward."""

    def __init__(self, out: TextIO, now: Callable[[], float]) -> None:
        self._out = out
        self._now = now
        self._began = now()
        self._text = ""
        self._is_terminal = out.isatty()

    def tell(self, text: str) -> None:
        """What is so now."""
        if text == self._text:
            return
        self._text = plain(text)
        if self._is_terminal:
            self._draw()
        else:
            self._write(f"{self._text}\n")

    async def tick(self) -> None:
        """Rewrite the line each second, with the time that has passed, until cancelled."""
        while True:
            await asyncio.sleep(_SECONDS)
            self._draw()

    def clear(self) -> None:
        """Take the line away."""
        if self._is_terminal:
            self._write(_CLEAR)

    def _draw(self) -> None:
        self._write(f"{_CLEAR}{self._text}, {self._now() - self._began:.0f} s")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


@asynccontextmanager
async def progress_on(out: TextIO) -> AsyncIterator[Progress]:
    """A progress line for the time of the block."""
    progress = Progress(out, asyncio.get_running_loop().time)
    ticking = asyncio.create_task(progress.tick()) if out.isatty() else None
    try:
        yield progress
    finally:
        if ticking is not None:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
        progress.clear()


_SETTLED = ("succeeded", "failed")
_LONGEST_LOOK = 20
"""Seconds of one long poll."""
_BETWEEN_LOOKS = 2.5
"""Seconds; Rivya itself, and other servers that know no long polls, are never asked in a tight loop."""
_PATIENCE = 60.0
"""Seconds without an answer after which it is given up."""


async def outcome_of(
    receiver: Receiver, generation_id: str, progress: Progress, *, patience: float | None = None
) -> dict[str, Any]:
    """The settled generation. Raises `CallFailed`, also when it is still open after `patience` seconds.

    Failures that may pass are waited out for a minute; not that nobody answers the first look.
    """
    now = asyncio.get_running_loop().time
    deadline = None if patience is None else now() + patience
    seconds, pace = 0, 0.0  # the first look is for how it stands, and the second need not wait for it
    while True:
        began = now()
        found = await _answer(receiver, generation_id, progress, seconds=seconds)
        if found.get("status") in _SETTLED:
            return found
        progress.tell(f"{generation_id}: {_standing(found)}")
        left = math.inf if deadline is None else deadline - now()
        if left <= 0:
            raise unanswered("still_open", f"{generation_id} is {_standing(found)} after {patience:g} s")
        await asyncio.sleep(max(0.0, min(began + pace - now(), left)))
        seconds, pace = int(min(_LONGEST_LOOK, left)), _BETWEEN_LOOKS


async def _answer(receiver: Receiver, generation_id: str, progress: Progress, *, seconds: int) -> dict[str, Any]:
    """The generation, settled or as it is after `seconds`; asked for again where a failure may pass."""
    now = asyncio.get_running_loop().time
    began = now()
    while True:
        try:
            return await receiver.get(f"/generations/{segment(generation_id)}", wait=seconds)
        except CallFailed as failure:
            is_nobody_there = failure.status is None and seconds == 0
            if not failure.may_pass or is_nobody_there or now() - began > _PATIENCE + seconds:
                raise
            progress.tell(f"{generation_id}: {failure}; trying again")
            await asyncio.sleep(failure.retry_after or _BETWEEN_LOOKS)


def _standing(found: dict[str, Any]) -> str:
    """The status, and what the receiver does about it where that is unusual: stalled or lost."""
    tracking = found.get("tracking")
    state = tracking.get("state") if isinstance(tracking, dict) else None
    return f"{found.get('status')}" if state in (None, "watching") else f"{found.get('status')} ({state})"
