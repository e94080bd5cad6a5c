"""Waits for a generation's outcome by long polls, through restarts and refusals that pass by themselves."""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from app.cli.client.http import CallFailed, Receiver, segment, unanswered
from app.cli.client.output import plain

Show = Callable[[str], None]
"""Called with how it stands."""


@contextmanager
def progress_on(out: TextIO) -> Iterator[Show]:
    """Shows how it stands: on a terminal in one line with the time, gone after the block; else in a line a change."""
    console = Console(file=out, force_terminal=out.isatty())  # a pipe stays plain whatever FORCE_COLOR says
    is_line = console.is_terminal and not console.is_dumb_terminal
    columns = (TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    progress = Progress(
        *columns, console=console, transient=True, disable=not is_line, redirect_stdout=False, redirect_stderr=False
    )
    with progress:
        line = progress.add_task("")

        def show(text: str) -> None:
            if (text := plain(text)) == progress.tasks[0].description:
                return
            progress.update(line, description=text, refresh=True)
            if not is_line:
                print(text, file=out, flush=True)

        yield show


_SETTLED = ("succeeded", "failed")
_LONGEST_LOOK = 20
"""Seconds of one long poll."""
_BETWEEN_LOOKS = 2.5
"""Seconds; Rivya itself, and other servers that know no long polls, are never asked in a tight loop."""
_PATIENCE = 60.0
"""Seconds without an answer after which it is given up."""


async def outcome_of(
    receiver: Receiver, generation_id: str, show: Show, *, patience: float | None = None
) -> dict[str, Any]:
    """The settled generation. Raises `CallFailed`, also when it is still open after `patience` seconds.

    Failures that may pass are waited out for a minute; not that nobody answers the first look.
    """
    now = asyncio.get_running_loop().time
    deadline = None if patience is None else now() + patience
    seconds, pace = 0, 0.0  # the first look is for how it stands, and the second need not wait for it
    while True:
        began = now()
        generation = await _answer(receiver, generation_id, show, seconds=seconds)
        if generation.get("status") in _SETTLED:
            return generation
        show(f"{generation_id}: {_standing(generation)}")
        left = math.inf if deadline is None else deadline - now()
        if left <= 0:
            raise unanswered("still_open", f"{generation_id} is {_standing(generation)} after {patience:g} s")
        await asyncio.sleep(max(0.0, min(began + pace - now(), left)))
        seconds, pace = int(min(_LONGEST_LOOK, left)), _BETWEEN_LOOKS


async def _answer(receiver: Receiver, generation_id: str, show: Show, *, seconds: int) -> dict[str, Any]:
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
            show(f"{generation_id}: {failure}; trying again")
            await asyncio.sleep(failure.retry_after or _BETWEEN_LOOKS)


def _standing(generation: dict[str, Any]) -> str:
    """The status, and what the receiver does about it where that is unusual: stalled or lost."""
    tracking = generation.get("tracking")
    state = tracking.get("state") if isinstance(tracking, dict) else None
    return f"{generation.get('status')}" if state in (None, "watching") else f"{generation.get('status')} ({state})"
