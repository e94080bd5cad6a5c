"""How long a caller wants to wait: `?wait=` first, else `Prefer: wait=` (RFC 7240)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MOST_SECONDS = 60
_WAIT = re.compile(r'\s*wait\s*=\s*"?([0-9]{1,9})"?\s*', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wait:
    """How long to wait at most, and the header that says so where the wish came as a preference."""

    seconds: float
    applied: str | None = None
    """The value of `Preference-Applied`."""


def wanted(query: float | None, prefer: Sequence[str]) -> Wait:
    """The wait asked for: the query parameter wins; a preference is capped at 60 seconds, and an odd one ignored."""
    if query is not None:
        return Wait(query)
    preferred = _preferred(prefer)
    return Wait(0) if preferred is None else Wait(preferred, applied=f"wait={preferred}")


def _preferred(prefer: Sequence[str]) -> int | None:
    for preference in ",".join(prefer).split(","):
        found = _WAIT.fullmatch(preference.partition(";")[0])
        if found:  # of a preference given twice, the first counts
            return min(int(found[1]), MOST_SECONDS)
    return None
