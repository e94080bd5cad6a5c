"""Waits for a generation's outcome by long polls, through restarts and refusals that pass by themselves."""

import asyncio
from typing import Any

from app.cli.calling.failures import CallFailed, unanswered
from app.cli.calling.progress import Progress
from app.cli.calling.receiver import Receiver, segment

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
    """The settled generation. Raises `CallFailed`, also when it is still open after `patience` seconds."""
    now = asyncio.get_running_loop().time
    deadline = None if patience is None else now() + patience
    answered_at = now()
    while True:
        began = now()
        try:
            found = await _look(receiver, generation_id, seconds=_seconds_to_look(deadline, began))
        except CallFailed as failure:
            if not failure.may_pass or now() - answered_at > _PATIENCE:
                raise
            progress.tell(f"{generation_id}: {failure}; trying again")
            await asyncio.sleep(failure.retry_after or _BETWEEN_LOOKS)
            continue
        answered_at = now()
        if found.get("status") in _SETTLED:
            return found
        progress.tell(f"{generation_id}: {found.get('status')}")
        if deadline is not None and now() >= deadline:
            raise unanswered("still_open", f"{generation_id} is {found.get('status')} after {patience:g} s")
        await asyncio.sleep(_pause(deadline, began, now()))


async def _look(receiver: Receiver, generation_id: str, *, seconds: int) -> dict[str, Any]:
    return await receiver.get(f"/generations/{segment(generation_id)}", wait=seconds)


def _seconds_to_look(deadline: float | None, now: float) -> int:
    return _LONGEST_LOOK if deadline is None else max(0, min(_LONGEST_LOOK, int(deadline - now)))


def _pause(deadline: float | None, began: float, now: float) -> float:
    """What is left until the next look may begin, or until the deadline if that is sooner."""
    pause = began + _BETWEEN_LOOKS - now
    return max(0.0, pause if deadline is None else min(pause, deadline - now))
