"""How long a call may take, and when it is sent again: never where that could pay twice; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from app.gateway.kinds import Kind

MOST_ATTEMPTS: Final = 3
LONGEST_PAUSE: Final = 5.0
"""Seconds. Who is asked to wait longer is told so, and decides for himself."""
_FIRST_PAUSE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds until the answer begins, all attempts together (None: as long as the body takes), and between bytes."""

    answer: float | None
    silence: float


def patience_of(*, chat: timedelta, stream: timedelta) -> Mapping[Kind, Patience]:
    """How long each kind of call may take; `stream` is how long a stream may be silent."""
    turn, silent = chat.total_seconds(), stream.total_seconds()
    return {
        Kind.READ: Patience(answer=10.0, silence=10.0),
        Kind.UPLOAD: Patience(answer=None, silence=120.0),
        Kind.TURN: Patience(answer=turn, silence=turn),
        Kind.STREAM: Patience(answer=turn, silence=silent),
    }


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that came to nothing, or to an answer that says "not now".

    `status` is None where no answer came, `sent` False only where the request certainly never left, and `retry_after`
    the seconds that Rivya asks to wait, None if it asked for none.
    """

    status: int | None
    sent: bool = True
    retry_after: float | None = None


def pause_before_retry(failure: Failure, *, attempt: int, is_repeatable: bool, chance: float) -> float | None:
    """Seconds until the next attempt, None: there is none. `attempt` counts from 1, `chance` is between 0 and 1.

    A call is repeatable that changes nothing, or that Rivya takes once for its `Idempotency-Key`. Any other is sent
    again only if it never left.
    """
    if attempt >= MOST_ATTEMPTS or not (is_repeatable or not failure.sent):
        return None
    if failure.status is not None and failure.status != 429 and failure.status < 500:
        return None
    if failure.retry_after is not None:
        return failure.retry_after if failure.retry_after <= LONGEST_PAUSE else None
    return float(_FIRST_PAUSE * 2 ** (attempt - 1) * (0.5 + chance))
