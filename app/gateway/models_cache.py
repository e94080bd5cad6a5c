"""A cache of Rivya's models: callers share one refresh, and get the last good list while Rivya fails."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import structlog
from starlette.responses import Response

from app.core.clock import Clock
from app.core.errors import ServiceError
from app.gateway.headers import Headers, response_headers
from app.gateway.upstream import MODELS, AnswerUnusable, Outgoing, Relay
from app.rivya.errors import RivyaUnavailable, read_error
from app.rivya.payloads import PayloadUnreadable, list_items, plausible_amount, read_json, read_models
from app.rivya.transport import RawResponse, StreamedResponse

log = structlog.stdlib.get_logger(__name__)

MOST_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class WholeAnswer(RawResponse):
    """An answer of Rivya's; `relayed` holds the headers for the caller."""

    relayed: Headers

    def response(self, *more: tuple[bytes, bytes]) -> Response:
        """The same answer for a caller, with additional headers."""
        response = Response(self.body, self.status)
        response.raw_headers = [*self.relayed, *more]
        return response


async def read_whole(response: StreamedResponse) -> WholeAnswer:
    """Read an answer to its end. Raises `AnswerUnusable`."""
    body = bytearray()
    try:
        async for piece in response.iter_bytes():
            body += piece
            if len(body) > MOST_BYTES:
                raise AnswerUnusable(f"Rivya's answer is larger than {MOST_BYTES} bytes.")
    except RivyaUnavailable:
        raise AnswerUnusable("Rivya's answer broke off.") from None
    relayed = response_headers(response.raw_headers, status=response.status, length=len(body))
    return WholeAnswer(response.status, response.headers, bytes(body), relayed)


SHORTEST_INTERVAL = timedelta(seconds=10)
"""How long the last good list is served after a failure before Rivya is asked again."""

AGE_FOR_CATEGORIES = timedelta(minutes=1)
"""A list for `categories` is not older than this, whatever the TTL, so that it has new models."""


@dataclass(frozen=True, slots=True)
class CachedModels:
    """A list of models from Rivya, and the monotonic time of its arrival."""

    answer: WholeAnswer
    fetched_at: float
    categories: dict[str, str]

    def entry(self, model_id: str) -> dict[str, Any] | None:
        """One model as Rivya lists it, None if it is not listed."""
        items = list_items(read_json(self.answer.body))
        return next((item for item in items if isinstance(item, dict) and item.get("id") == model_id), None)


Refreshed = CachedModels | WholeAnswer | ServiceError
"""A list, an answer of Rivya's without a usable list, or the error if there is no answer."""


class ModelsCache:
    """The copy of `GET /api/v1/models` in this process."""

    def __init__(self, relay: Relay, clock: Clock, *, ttl: timedelta) -> None:
        self._relay = relay
        self._clock = clock
        self._ttl = ttl
        self._cached: CachedModels | None = None
        self._failed_at: float | None = None
        self._refreshing: asyncio.Task[Refreshed] | None = None

    def age(self, cached: CachedModels) -> int:
        """Whole seconds since the list came from Rivya."""
        return max(int(self._clock.monotonic() - cached.fetched_at), 0)

    async def best(self) -> CachedModels | WholeAnswer:
        """The list, not older than the TTL if Rivya answers; else the last good one; else Rivya's error answer.

        Raises `UpstreamUnavailable` or `AnswerUnusable` if there is no list and no answer.
        """
        cached = self._cached
        if cached is not None and (self._is_fresh(cached, self._ttl) or self._has_just_failed()):
            return cached
        refreshed = await self._refresh()
        if isinstance(refreshed, CachedModels):
            return refreshed
        if cached is not None:
            return cached
        if isinstance(refreshed, ServiceError):
            raise refreshed
        return refreshed

    async def categories(self) -> dict[str, str]:
        """The category of each model by its id, from a list not older than a minute. Raises `RivyaError`."""
        cached = self._cached
        if cached is not None and self._is_fresh(cached, AGE_FOR_CATEGORIES):
            return cached.categories
        refreshed = await self._refresh()
        if isinstance(refreshed, CachedModels):
            return refreshed.categories
        if isinstance(refreshed, ServiceError):
            raise RivyaUnavailable(refreshed.message, sent=True)
        raise read_error(refreshed.status, refreshed.body, refreshed.headers)

    async def price(self, model_id: str) -> float | None:
        """Rivya's `base_credits` of a model; None where Rivya does not say, or the list can't be read."""
        try:
            models = await self.best()
        except ServiceError:
            return None
        entry = models.entry(model_id) if isinstance(models, CachedModels) else None
        return None if entry is None else plausible_amount(entry.get("base_credits"))

    async def aclose(self) -> None:
        """Cancel a running refresh."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    def _is_fresh(self, cached: CachedModels, at_most: timedelta) -> bool:
        return self._clock.monotonic() - cached.fetched_at < at_most.total_seconds()

    def _has_just_failed(self) -> bool:
        waited = None if self._failed_at is None else self._clock.monotonic() - self._failed_at
        return waited is not None and waited < SHORTEST_INTERVAL.total_seconds()

    async def _refresh(self) -> Refreshed:
        """The result of the running refresh, or of a new one; a cancelled caller does not cancel it for others."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._fetch())
        return await asyncio.shield(self._refreshing)

    async def _fetch(self) -> Refreshed:
        try:
            async with self._relay.opened(Outgoing(MODELS, MODELS.path, [])) as response:
                answer = await read_whole(response)
        except ServiceError as error:
            return self._failed(error)
        if not answer.ok:
            return self._failed(answer)
        try:
            cached = CachedModels(answer, self._clock.monotonic(), read_models(answer.body))
        except PayloadUnreadable:
            return self._failed(answer)
        self._cached, self._failed_at = cached, None
        return cached

    def _failed(self, refreshed: WholeAnswer | ServiceError) -> Refreshed:
        self._failed_at = self._clock.monotonic()
        log.warning("models.not_refreshed", status=refreshed.status)
        return refreshed
