"""What is written of a poll that had nothing to report; pure."""

from datetime import datetime

from app.ledger.poll_state import Held, PollNote
from app.polling.schedule import Next
from app.rivya.errors import (
    RivyaError,
    RivyaForbidden,
    RivyaNotFound,
    RivyaRateLimited,
    RivyaRefused,
    RivyaUnauthorized,
    RivyaUnreadable,
)

_RESULTS: tuple[tuple[type[RivyaError], str], ...] = (
    (RivyaRateLimited, "rate_limited"),
    (RivyaUnauthorized, "unauthorized"),
    (RivyaForbidden, "unauthorized"),
    (RivyaNotFound, "not_found"),
    (RivyaRefused, "refused"),
    (RivyaUnreadable, "unreadable"),
)


def result_of(error: RivyaError) -> str:
    """One word for how a poll failed, as it is counted."""
    return next((word for kind, word in _RESULTS if isinstance(error, kind)), "unavailable")


def error_of(error: RivyaError) -> str:
    """That word, and Rivya's status and code where it gave them; never a message or a body."""
    known = (getattr(error, "status", None), getattr(error, "code", None))
    return " ".join([result_of(error), *(str(part) for part in known if part is not None)])


def given_back(held: Held, now: datetime) -> PollNote:
    """It was not polled: due at once, for whoever can."""
    return PollNote(
        held=held,
        next_poll_at=now,
        tracking=held.tracking,
        polls=held.polls,
        poll_failures=held.poll_failures,
        last_poll_error=held.last_poll_error,
        not_found_count=held.not_found_count,
        not_found_since=held.not_found_since,
    )


def failed(held: Held, following: Next, error: str) -> PollNote:
    """It was polled and nothing was learnt."""
    return PollNote(
        held=held,
        next_poll_at=following.poll_at,
        tracking=following.tracking,
        polls=held.polls + 1,
        poll_failures=held.poll_failures + 1,
        last_poll_error=error,
        not_found_count=held.not_found_count,
        not_found_since=held.not_found_since,
    )


def not_found(held: Held, following: Next, error: str, *, now: datetime) -> PollNote:
    """Rivya said that there is no such generation, which is an answer."""
    return PollNote(
        held=held,
        next_poll_at=following.poll_at,
        tracking=following.tracking,
        polls=held.polls + 1,
        poll_failures=0,
        last_poll_error=error,
        not_found_count=held.not_found_count + 1,
        not_found_since=held.not_found_since or now,
    )
