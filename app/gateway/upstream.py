"""Sends relayed calls to Rivya with our key and a deadline, and repeats only those that can't be charged twice."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

import structlog
from prometheus_client import Counter

from app.core.auth import Role
from app.core.errors import DatabaseUnavailable, ServiceError
from app.gateway.headers import Headers, value_of
from app.rivya.client import RivyaClient
from app.rivya.errors import (
    RivyaError,
    RivyaMalformed,
    RivyaRateLimited,
    RivyaUnavailable,
    RivyaUnreadable,
    read_retry_after,
)
from app.rivya.transport import StreamedResponse

log = structlog.stdlib.get_logger(__name__)


class Kind(StrEnum):
    """The kind of a relayed call, which decides its body and its time-outs."""

    READ = "read"
    UPLOAD = "upload"
    TURN = "turn"
    """A chat turn with one whole answer, which may take long."""
    STREAM = "stream"


MOST_ATTEMPTS: Final = 3
LONGEST_PAUSE: Final = 5.0
"""Seconds. If Rivya asks for a longer pause, the caller gets Rivya's answer."""
_FIRST_PAUSE: Final = 0.2


@dataclass(frozen=True, slots=True)
class CallTimeouts:
    """Time-outs in seconds: until the answer begins, with all attempts (None: no limit), and between bytes."""

    answer: float | None
    silence: float


def call_timeouts(*, chat: timedelta, stream: timedelta) -> Mapping[Kind, CallTimeouts]:
    """The time-outs of each kind of call; `stream` is the silence allowed within a stream."""
    turn, silent = chat.total_seconds(), stream.total_seconds()
    return {
        Kind.READ: CallTimeouts(answer=10.0, silence=10.0),
        Kind.UPLOAD: CallTimeouts(answer=None, silence=120.0),
        Kind.TURN: CallTimeouts(answer=turn, silence=turn),
        Kind.STREAM: CallTimeouts(answer=turn, silence=silent),
    }


@dataclass(frozen=True, slots=True)
class Failure:
    """The result of an attempt, to decide on a retry.

    `status` is None if no answer came. `sent` is False only if the request was certainly not sent. `retry_after` is
    the seconds that Rivya asks to wait, None if it asks for none.
    """

    status: int | None
    sent: bool = True
    retry_after: float | None = None


def pause_before_retry(failure: Failure, *, attempt: int, is_repeatable: bool, chance: float) -> float | None:
    """Seconds until the next attempt, None for no more attempts. `attempt` counts from 1, `chance` is from 0 to 1.

    A call is repeatable if it changes nothing, or if Rivya executes it only once for its `Idempotency-Key`. Any other
    is repeated only if it was not sent.
    """
    if attempt >= MOST_ATTEMPTS or not (is_repeatable or not failure.sent):
        return None
    if failure.status is not None and failure.status != 429 and failure.status < 500:
        return None
    if failure.retry_after is not None:
        return failure.retry_after if failure.retry_after <= LONGEST_PAUSE else None
    return float(_FIRST_PAUSE * 2 ** (attempt - 1) * (0.5 + chance))


@dataclass(frozen=True, slots=True)
class Relayed:
    """One of Rivya's documented calls; `path` names its parameter in braces."""

    name: str
    method: str
    path: str
    kind: Kind
    role: Role


MODELS = Relayed("models", "GET", "/api/v1/models", Kind.READ, Role.READ)
CREDITS = Relayed("credits", "GET", "/api/v1/credits", Kind.READ, Role.READ)
UPLOAD_FILE = Relayed("files.create", "POST", "/api/v1/files", Kind.UPLOAD, Role.WRITE)
GET_FILE = Relayed("files.get", "GET", "/api/v1/files/{file_id}", Kind.READ, Role.READ)
COMPLETE = Relayed("chat.complete", "POST", "/api/v1/chat/completions", Kind.TURN, Role.WRITE)
STREAM = Relayed("chat.stream", "POST", "/api/v1/chat/completions/stream", Kind.STREAM, Role.WRITE)
LIST_SESSIONS = Relayed("chat.sessions", "GET", "/api/v1/chat/sessions", Kind.READ, Role.READ)
GET_SESSION = Relayed("chat.session", "GET", "/api/v1/chat/sessions/{session_id}", Kind.READ, Role.READ)

RETRIES = Counter("receiver_rivya_retries", "Relayed calls that were sent again, by route.", ["route"])

Pause = Callable[[float], Awaitable[None]]
OnRateLimit = Callable[[RivyaError], Awaitable[None]]
Body = bytes | AsyncIterator[bytes] | None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A call to send to Rivya; `target` is a path with its query, `asked_id` the id in the path."""

    relayed: Relayed
    target: str
    headers: Headers
    body: Body = None
    asked_id: str | None = None

    @property
    def is_repeatable(self) -> bool:
        """True if sending it twice has the same effect as sending it once."""
        return self.relayed.method == "GET" or value_of(self.headers, b"idempotency-key") is not None


class UpstreamUnavailable(ServiceError):
    """Rivya did not answer. 503 where nothing was sent, 504 where the call may have taken effect."""

    def __init__(self, *, sent: bool) -> None:
        self.sent = sent
        if not sent:
            message = "Rivya can't be reached at the moment, and nothing was sent. Try again."
            super().__init__(message, status=503, code="rivya_unreachable", retry_after=5)
            return
        message = (
            "Rivya did not answer in time; the call may have taken effect. Repeat it with the same Idempotency-Key."
        )
        super().__init__(message, status=504, code="rivya_no_answer")


class AnswerUnusable(ServiceError):
    """Rivya's answer broke off, is too large or encoded, breaks the rules of HTTP, or is about something else."""

    status = 502
    code = "rivya_unreadable"


@dataclass(frozen=True, slots=True)
class Relay:
    """Sends callers' calls to Rivya and opens the answers."""

    client: RivyaClient
    timeouts: Mapping[Kind, CallTimeouts]
    on_rate_limit: OnRateLimit
    """Called with each 429 of Rivya, so that background calls pause."""
    pause: Pause = asyncio.sleep

    @asynccontextmanager
    async def opened(self, call: Outgoing) -> AsyncIterator[StreamedResponse]:
        """The answer to a call, open while the block runs; if the block ends early, so does the call at Rivya.

        Raises `UpstreamUnavailable`, `AnswerUnusable`, and what reading the request body raises.
        """
        response = await self._within_deadline(call)
        try:
            yield response
        finally:
            await response.aclose()

    async def _within_deadline(self, call: Outgoing) -> StreamedResponse:
        timeouts = self.timeouts[call.relayed.kind]
        try:
            async with asyncio.timeout(timeouts.answer):
                return await self._open(call, timeouts)
        except TimeoutError:
            log.warning("relay.no_answer", route=call.relayed.name)
            raise UpstreamUnavailable(sent=True) from None
        except (RivyaMalformed, RivyaUnreadable) as error:
            log.warning("relay.unreadable", route=call.relayed.name, reason=str(error))
            raise AnswerUnusable("Rivya's answer can't be used; the call may have taken effect.") from error
        except RivyaUnavailable as error:
            log.warning("relay.no_answer", route=call.relayed.name, reason=str(error))
            raise UpstreamUnavailable(sent=error.sent) from error

    async def _open(self, call: Outgoing, timeouts: CallTimeouts) -> StreamedResponse:
        attempt = 1
        while True:
            response, failure = await self._attempt(call, timeouts)
            pause = self._pause_after(failure, call, attempt)
            if pause is None:
                if isinstance(response, RivyaUnavailable):
                    raise response
                return response
            if isinstance(response, StreamedResponse):
                await response.aclose()
            RETRIES.labels(call.relayed.path).inc()
            log.info("relay.retried", route=call.relayed.name, attempt=attempt, status=failure.status)
            await self.pause(pause)
            attempt += 1

    async def _attempt(
        self, call: Outgoing, timeouts: CallTimeouts
    ) -> tuple[StreamedResponse | RivyaUnavailable, Failure]:
        try:
            response = await self.client.open(
                call.relayed.method, call.target, silence=timeouts.silence, headers=call.headers, content=call.body
            )
        except RivyaUnavailable as error:
            return error, Failure(None, sent=error.sent)
        failure = Failure(response.status, retry_after=read_retry_after(response.headers))
        if failure.status == 429:
            await self._report_rate_limit(failure)
        return response, failure

    def _pause_after(self, failure: Failure, call: Outgoing, attempt: int) -> float | None:
        if not isinstance(call.body, bytes | None):
            return None  # the pieces already sent can't be sent again
        return pause_before_retry(
            failure,
            attempt=attempt,
            is_repeatable=call.is_repeatable,
            chance=random.random(),  # noqa: S311
        )

    async def _report_rate_limit(self, failure: Failure) -> None:
        with suppress(DatabaseUnavailable):  # the caller's answer does not depend on our database
            await self.on_rate_limit(RivyaRateLimited(429, "rate_limited", retry_after=failure.retry_after))
