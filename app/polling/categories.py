"""The category of each model in Rivya's catalogue, read at the start, hourly, and after a model was not found in it."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from app.core.clock import Clock
from app.ratelimit.limiter import RateLimiter
from app.rivya.errors import RivyaError

REFRESH_INTERVAL = timedelta(hours=1)
SHORTEST_INTERVAL = timedelta(minutes=1)

_SECONDS_BETWEEN_RUNS = 5.0

log = structlog.stdlib.get_logger(__name__)

Read = Callable[[], Awaitable[dict[str, str]]]
"""Returns the category of each model by its id. Raises `RivyaError`."""


class Categories:
    """The last known category of each model. A failed read changes nothing."""

    def __init__(self, read: Read, limiter: RateLimiter, clock: Clock) -> None:
        self._read = read
        self._limiter = limiter
        self._clock = clock
        self._known: dict[str, str] = {}
        self._tried_at: float | None = None
        self._wait = SHORTEST_INTERVAL
        self._met_unknown = False

    def of(self, model: str | None) -> str | None:
        """The model's category, None while it is not known."""
        category = self.known(model)
        if model is not None and category is None:
            self._met_unknown = True
        return category

    def known(self, model: str | None) -> str | None:
        """As `of`, without having the catalogue read again for a model that it lacks."""
        return self._known.get(model) if model is not None else None

    async def run_once(self) -> float:
        """Read the catalogue if that is due and the budget allows it; returns the seconds until the next run."""
        if not (self._is_due() and await self._limiter.acquire()):
            return _SECONDS_BETWEEN_RUNS
        self._tried_at, self._wait = self._clock.monotonic(), SHORTEST_INTERVAL
        try:
            self._known |= await self._read()  # keeps removed models: they may still have generations
        except RivyaError as error:
            log.info("models.unreadable", error=type(error).__name__)
            await self._limiter.record_error(error)
        else:
            self._wait, self._met_unknown = REFRESH_INTERVAL, False
        return _SECONDS_BETWEEN_RUNS

    def _is_due(self) -> bool:
        if self._tried_at is None:
            return True
        waited = timedelta(seconds=self._clock.monotonic() - self._tried_at)
        return waited >= (SHORTEST_INTERVAL if self._met_unknown else self._wait)
