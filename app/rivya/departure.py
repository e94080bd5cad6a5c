"""The moment at which a request leaves: the last at which it can be held back, and the first from which it may act."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import httpx

from app.rivya.errors import RivyaNotAsked, RivyaUnavailable

MayLeave = Callable[[], bool]


class Departure:
    """Notes whether the first byte of a request was about to leave: from then on it may have taken effect.

    `may_leave` is asked right before, once the connection is there; where it says no, RivyaNotAsked is raised.
    """

    def __init__(self, may_leave: MayLeave | None = None) -> None:
        self.begun = False
        self._may_leave = may_leave

    async def trace(self, event: str, _details: Mapping[str, object]) -> None:
        """Be told by the HTTP library what it does."""
        if self.begun or not event.endswith(".send_request_headers.started"):
            return
        if self._may_leave is not None and not self._may_leave():
            raise RivyaNotAsked
        self.begun = True


@contextmanager
def unavailable(departure: Departure, seconds: float) -> Iterator[None]:
    """Turn a time-out of so many seconds, and what httpx raises, into RivyaUnavailable."""
    try:
        yield
    except TimeoutError as error:
        raise RivyaUnavailable(f"no whole answer within {seconds:g} s", sent=departure.begun) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        situation = f"the exchange failed: {type(error).__name__}"
        raise RivyaUnavailable(situation, sent=departure.begun) from error
