"""Maps a failed call to Rivya about our registration to a stored code, a pause and an explanation; pure."""

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


class OutcomeUnknown(Exception):
    """The state at Rivya is unknown, so no endpoint may be created or removed; `code` gives the reason."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt. `retry_after`: seconds that Rivya asks to wait. `needs_person`: a retry alone will not help."""

    code: str
    retry_after: float | None = None
    needs_person: bool = False
    request_id: str | None = None

    def pause(self, failures: int, *, jitter: float) -> float:
        """Seconds until the next attempt after `failures` failures in a row; `jitter` is between -1 and 1."""
        doubled = LONGEST_PAUSE if self.needs_person else FIRST_PAUSE * 2 ** min(failures - 1, 10)
        return max(min(doubled, LONGEST_PAUSE) * (1 + 0.2 * jitter), self.retry_after or 0)


def read_failure(error: RivyaError | OutcomeUnknown) -> Failure:
    """The failure that `error` stands for. Its code is one of ours or Rivya's, never a part of a body."""
    match error:
        case OutcomeUnknown():
            return Failure(error.code)
        case RivyaRefused():
            code = error.code if _CODE.fullmatch(error.code) else f"refused_{error.status}"
            passes = isinstance(error, RivyaRateLimited | RivyaNotFound) or error.status in (408, 409)
            return Failure(code, error.retry_after, not passes, error.request_id)
        case RivyaUnavailable():
            return Failure("rivya_unavailable", error.retry_after, request_id=error.request_id)
    return Failure("rivya_unreadable" if isinstance(error, RivyaUnreadable) else "rivya_unavailable")


def explain(code: str) -> str:
    """A sentence for people: what the code means and what to do about it."""
    if code.startswith("api_key_"):
        return f"Rivya does not take RIVYA_API_KEY ({code}): give a valid one"
    return _EXPLAINED.get(code, f"Rivya refuses: {code}")


def is_definite(error: RivyaError) -> bool:
    """True if the call certainly changed nothing at Rivya: it was refused, or never sent."""
    if isinstance(error, RivyaUnavailable):
        return not error.sent
    # Rivya may answer 408 and 409 to a request that took effect in part, or earlier.
    return isinstance(error, RivyaRefused) and error.status not in (408, 409)


def is_gone(error: RivyaError) -> bool:
    """True if Rivya states that the endpoint does not exist. A 404 with another code, as of a proxy, does not count."""
    return isinstance(error, RivyaNotFound) and error.code == "not_found"
