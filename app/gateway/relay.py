"""Sends relayed calls to Rivya: with our key, within a deadline, and again only where that can't pay twice."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog
from prometheus_client import Counter

from app.core.errors import DatabaseUnavailable, ServiceError
from app.gateway.calls import Relayed
from app.gateway.headers import Headers, value_of
from app.gateway.kinds import Kind
from app.gateway.patience import Failure, Patience, pause_before_retry
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError, RivyaRateLimited, RivyaUnavailable, read_retry_after
from app.rivya.transport import Passage

RETRIES = Counter("receiver_rivya_retries", "Relayed calls that were sent again, by route.", ["route"])

log = structlog.stdlib.get_logger(__name__)

Pause = Callable[[float], Awaitable[None]]
Note = Callable[[RivyaError], Awaitable[None]]
Body = bytes | AsyncIterator[bytes] | None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A call as it leaves: `target` is a path with its query."""

    relayed: Relayed
    target: str
    headers: Headers
    body: Body = None

    @property
    def is_repeatable(self) -> bool:
        """Sending it twice has the effect of sending it once."""
        return self.relayed.method == "GET" or value_of(self.headers, b"idempotency-key") is not None


class RivyaSilent(ServiceError):
    """Rivya did not answer. 503 where nothing was sent, 504 where the call may have taken effect."""

    def __init__(self, *, sent: bool) -> None:
        if not sent:
            message = "Rivya can't be reached at the moment, and nothing was sent. Try again."
            super().__init__(message, status=503, code="rivya_unreachable", retry_after=5)
            return
        message = (
            "Rivya did not answer in time; the call may have taken effect. Repeat it with the same Idempotency-Key."
        )
        super().__init__(message, status=504, code="rivya_no_answer")


class Relay:
    """Opens calls to Rivya for callers."""

    def __init__(
        self, client: RivyaClient, *, patience: Mapping[Kind, Patience], note: Note, pause: Pause = asyncio.sleep
    ) -> None:
        self._client = client
        self._patience = patience
        self._note = note
        """Is told of Rivya's 429s, so that background calls pause."""
        self._pause = pause

    @asynccontextmanager
    async def opened(self, call: Outgoing) -> AsyncIterator[Passage]:
        """The answer to a call, open while the block runs; leaving it early ends the call at Rivya.

        Raises `RivyaSilent`, and what the body raises.
        """
        passage = await self._within_deadline(call)
        try:
            yield passage
        finally:
            await passage.aclose()

    async def _within_deadline(self, call: Outgoing) -> Passage:
        patience = self._patience[call.relayed.kind]
        try:
            async with asyncio.timeout(patience.answer):
                return await self._open(call, patience)
        except TimeoutError:
            log.warning("relay.no_answer", route=call.relayed.name)
            raise RivyaSilent(sent=True) from None
        except RivyaUnavailable as error:
            log.warning("relay.no_answer", route=call.relayed.name, reason=str(error))
            raise RivyaSilent(sent=error.sent) from error

    async def _open(self, call: Outgoing, patience: Patience) -> Passage:
        attempt = 1
        while True:
            passage, failure = await self._attempt(call, patience)
            pause = self._pause_after(failure, call, attempt)
            if pause is None:
                if isinstance(passage, RivyaUnavailable):
                    raise passage
                return passage
            if isinstance(passage, Passage):
                await passage.aclose()
            RETRIES.labels(call.relayed.path).inc()
            log.info("relay.retried", route=call.relayed.name, attempt=attempt, status=failure.status)
            await self._pause(pause)
            attempt += 1

    async def _attempt(self, call: Outgoing, patience: Patience) -> tuple[Passage | RivyaUnavailable, Failure]:
        try:
            passage = await self._client.open(
                call.relayed.method, call.target, silence=patience.silence, headers=call.headers, content=call.body
            )
        except RivyaUnavailable as error:
            return error, Failure(None, sent=error.sent)
        failure = Failure(passage.status, retry_after=read_retry_after(passage.headers))
        if failure.status == 429:
            await self._tell_rate_limit(failure)
        return passage, failure

    def _pause_after(self, failure: Failure, call: Outgoing, attempt: int) -> float | None:
        if not isinstance(call.body, bytes | None):
            return None  # what was sent of it is gone
        return pause_before_retry(
            failure,
            attempt=attempt,
            is_repeatable=call.is_repeatable,
            chance=random.random(),  # noqa: S311
        )

    async def _tell_rate_limit(self, failure: Failure) -> None:
        with suppress(DatabaseUnavailable):  # the caller's answer does not depend on our database
            await self._note(RivyaRateLimited(429, "rate_limited", retry_after=failure.retry_after))
