"""Refuses no delivery for its age while clocks disagree: one that is of now by any of them is taken.

Only a delivery with the right signature gets this far. That an old one may be taken again while a clock is off does no
harm: an event that is known changes nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import structlog

from app.intake.route import Verification
from app.rivya.signature import RawHeaders, Reason, Refused, Verified

_TIMED: Final = frozenset({Reason.STALE_TIMESTAMP, Reason.FUTURE_TIMESTAMP})

log = structlog.stdlib.get_logger(__name__)


class OtherClocks:
    """A `Verification` by our clock, and for what that one calls too old or too new, by others."""

    def __init__(self, ours: Verification, others: Sequence[Verification]) -> None:
        self._ours = ours
        self._others = others

    @property
    def is_read(self) -> bool:
        """What is stored has been read; before that, no secret is known."""
        return self._ours.is_read

    def endpoint_id(self, path_key: str | None) -> str | None:
        """Which endpoint of ours has this path key."""
        return self._ours.endpoint_id(path_key)

    def at_once(
        self, headers: RawHeaders, body: bytes, path_key: str | None, now: datetime
    ) -> Verified | Refused | None:
        """By our clock, where nothing has to be waited for or written down first; None says nothing."""
        result = self._ours.at_once(headers, body, path_key, now)
        return None if result is not None and _is_of_another_time(result) else result

    async def verify(self, headers: RawHeaders, body: bytes, path_key: str | None) -> Verified | Refused:
        """Whether Rivya signed it. Raises `ServiceError` where that can't be told at the moment."""
        result = await self._ours.verify(headers, body, path_key)
        if not _is_of_another_time(result):
            return result
        for other in self._others:
            second = await other.verify(headers, body, path_key)
            if isinstance(second, Verified):
                log.warning("delivery.taken_by_another_clock", offset=round(result.offset_seconds or 0))
                return second
        return result


def _is_of_another_time(result: Verified | Refused) -> bool:
    return isinstance(result, Refused) and result.reason in _TIMED
