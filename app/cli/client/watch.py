"""Waits for outcomes and events by long polls, through restarts of the receiver and temporary errors."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from app.cli.client.http import CallFailed, Receiver, local_failure
from app.cli.client.output import member, plain

Show = Callable[[str], None]
"""Called with the present state, as text."""

_MAX_WAIT = 20
"""Seconds of one long poll."""
_INTERVAL = 2.5
"""Seconds between requests at least, because Rivya itself has no long polls."""
_MAX_OUTAGE = 60.0
"""Seconds without a response after which waiting fails."""


@contextmanager
def progress_on(out: TextIO) -> Iterator[Show]:
    """Shows the state: on a terminal in one line with the time, removed after the block; else one line per change."""
    console = Console(file=out, force_terminal=out.isatty())  # FORCE_COLOR must not put colours into a pipe
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


async def wait_for_outcome(
    receiver: Receiver, generation_id: str, show: Show, *, max_seconds: float | None = None
) -> dict[str, Any]:
    """The settled generation. Raises `CallFailed`, also if the generation is still open after `max_seconds` seconds.

    Temporary failures are retried for a minute, but not if nobody answers the first request.
    """
    now = asyncio.get_running_loop().time
    deadline = math.inf if max_seconds is None else now() + max_seconds
    wait, interval = 0, 0.0  # the first request shows the present state at once, and the second follows immediately
    while True:
        began = now()
        generation = await _get(receiver, "generations", generation_id, show=show, wait=wait)
        if generation.get("status") in ("succeeded", "failed"):
            return generation
        show(f"{generation_id}: {_state(generation)}")
        left = deadline - now()
        if left <= 0:
            raise local_failure("still_open", f"{generation_id} is {_state(generation)} after {max_seconds:g} s")
        await asyncio.sleep(max(0.0, min(began + interval - now(), left)))
        wait, interval = int(min(_MAX_WAIT, left)), _INTERVAL


async def iter_events(
    receiver: Receiver, show: Show, *, after: str | None, follow: bool
) -> AsyncIterator[dict[str, Any]]:
    """The pages of the feed after this cursor, to its end, or with `follow` without end. Raises `CallFailed`."""
    wait, has_more = 0, True  # if nobody answers the first request, it is not repeated
    while has_more or follow:
        page = await _get(receiver, "events", show=show, wait=wait, after=after)
        yield page
        after, has_more = page["next_cursor"], bool(page.get("has_more"))
        wait = _MAX_WAIT if follow else 0


async def _get(receiver: Receiver, *path: str, show: Show, wait: int, **parameters: str | None) -> dict[str, Any]:
    """The response to a long poll of `wait` seconds; temporary failures are retried."""
    now = asyncio.get_running_loop().time
    began = now()
    while True:
        try:
            return await receiver.get(*path, wait=wait, **parameters)
        except CallFailed as failure:
            is_unreachable = failure.status is None and wait == 0
            if not failure.may_pass or is_unreachable or now() - began > _MAX_OUTAGE + wait:
                raise
            show(f"{path[-1]}: {failure}; trying again")
            await asyncio.sleep(failure.retry_after or _INTERVAL)


def _state(generation: dict[str, Any]) -> str:
    """The status, with the tracking state if that is unusual: stalled or lost."""
    state = member(generation, "tracking").get("state")
    return f"{generation.get('status')}" if state in (None, "watching") else f"{generation.get('status')} ({state})"
