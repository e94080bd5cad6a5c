"""What a failed call to Rivya about our registration means: a code to keep, a pause, a sentence for people; pure."""

import re
from dataclasses import dataclass
from typing import Final

from app.rivya.errors import (
    RivyaError,
    RivyaNotFound,
    RivyaRateLimited,
    RivyaRefused,
    RivyaUnavailable,
    RivyaUnreadable,
)

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0

_CODE: Final = re.compile(r"[a-z0-9_]{1,64}")
_EXPLAINED: Final = {
    "api_scope_denied": "RIVYA_API_KEY lacks the scope webhooks:manage (api_scope_denied)",
    "webhook_url_rejected": (
        "Rivya does not allow the URL made of RECEIVER_PUBLIC_URL (webhook_url_rejected): "
        "it must be https, public, without credentials or fragment"
    ),
    "rate_limited": "Rivya asks for a pause (rate_limited); it is tried again",
    "rivya_unavailable": "Rivya can't be reached or fails (rivya_unavailable); it is tried again",
    "rivya_unreadable": "Rivya's answer can't be read (rivya_unreadable); it is tried again",
    "list_unreadable": (
        "a create was sent and its answer lost, and Rivya's list of endpoints can't be read (list_unreadable): "
        "it is not known whether the endpoint exists, so none is made"
    ),
    "list_incomplete": (
        "a create was sent and its answer lost, and Rivya's list of endpoints has further pages (list_incomplete): "
        "it is not known whether the endpoint exists, so none is made"
    ),
    "create_unsettled": "a create was sent and its answer lost; what became of it is being found out",
    "endpoint_disabled": "the endpoint is disabled at Rivya, and Rivya refuses to enable it (endpoint_disabled)",
    "replaced_too_often": (
        "our endpoint was made five times within an hour (replaced_too_often): something disables or removes it, "
        "see the history of `rivya-receiver endpoint`; it is tried again within the hour"
    ),
    "encryption_key_missing": "RECEIVER_ENCRYPTION_KEYS is not set, so no secret could be stored",
}


class Undecided(Exception):
    """What exists at Rivya, or what may be done, is not known; the code says why. Nothing is made or removed on it."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt: its code, Rivya's own wish for a pause in seconds, and whether only a person can help."""

    code: str
    retry_after: float | None = None
    needs_person: bool = False
    request_id: str | None = None

    def pause(self, failures: int, *, jitter: float) -> float:
        """Seconds until the next attempt after so many failures in a row; `jitter` is between -1 and 1."""
        doubled = LONGEST_PAUSE if self.needs_person else FIRST_PAUSE * 2 ** min(failures - 1, 10)
        return max(min(doubled, LONGEST_PAUSE) * (1 + 0.2 * jitter), self.retry_after or 0)


def read_failure(error: RivyaError | Undecided) -> Failure:
    """What `error` means. The code is one of ours or Rivya's, never a part of a body."""
    match error:
        case Undecided():
            return Failure(error.code)
        case RivyaRefused():
            passes = isinstance(error, RivyaRateLimited | RivyaNotFound) or error.status in (408, 409)
            return Failure(_refusal_code(error), error.retry_after, not passes, error.request_id)
        case RivyaUnavailable():
            return Failure("rivya_unavailable", error.retry_after, request_id=error.request_id)
        case RivyaUnreadable():
            return Failure("rivya_unreadable")
    return Failure("rivya_unavailable")


def explain(code: str) -> str:
    """What is wrong, and what to do about it."""
    if code.startswith("api_key_"):
        return f"Rivya does not take RIVYA_API_KEY ({code}): give a valid one"
    return _EXPLAINED.get(code, f"Rivya refuses: {code}")


def is_definite(error: RivyaError) -> bool:
    """The call certainly changed nothing at Rivya: it was refused, or never got there."""
    if isinstance(error, RivyaUnavailable):
        return not error.sent
    # 408 and 409 are said of requests that may have been half done, or done before.
    return isinstance(error, RivyaRefused) and error.status not in (408, 409)


def is_gone(error: RivyaError) -> bool:
    """Rivya says in so many words that there is no such endpoint."""
    return isinstance(error, RivyaNotFound) and error.code == "not_found"


def _refusal_code(error: RivyaRefused) -> str:
    return error.code if _CODE.fullmatch(error.code) else f"refused_{error.status}"
