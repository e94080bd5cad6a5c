"""Sends relayed calls to Rivya: with our key, within a deadline, and again only where that can't pay twice."""

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
from app.rivya.errors import RivyaError, RivyaRateLimited, RivyaUnavailable, read_retry_after
from app.rivya.transport import StreamedResponse

log = structlog.stdlib.get_logger(__name__)


# Which kinds of relayed calls there are; pure.


class Kind(StrEnum):
    """What a call is, as far as relaying it goes."""

    READ = "read"
    UPLOAD = "upload"
    TURN = "turn"
    """One whole answer, which a model takes its time for."""
    STREAM = "stream"


# How long a call may take, and when it is sent again: never where that could pay twice; pure.


MOST_ATTEMPTS: Final = 3
LONGEST_PAUSE: Final = 5.0
"""Seconds. Who is asked to wait longer is told so, and decides for himself."""
_FIRST_PAUSE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds until the answer begins, all attempts together (None: as long as the body takes), and between bytes."""

    answer: float | None
    silence: float


def patience_of(*, chat: timedelta, stream: timedelta) -> Mapping[Kind, Patience]:
    """How long each kind of call may take; `stream` is how long a stream may be silent."""
    turn, silent = chat.total_seconds(), stream.total_seconds()
    return {
        Kind.READ: Patience(answer=10.0, silence=10.0),
        Kind.UPLOAD: Patience(answer=None, silence=120.0),
        Kind.TURN: Patience(answer=turn, silence=turn),
        Kind.STREAM: Patience(answer=turn, silence=silent),
    }


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that came to nothing, or to an answer that says "not now".

    `status` is None where no answer came, `sent` False only where the request certainly never left, and `retry_after`
    the seconds that Rivya asks to wait, None if it asked for none.
    """

    status: int | None
    sent: bool = True
    retry_after: float | None = None


def pause_before_retry(failure: Failure, *, attempt: int, is_repeatable: bool, chance: float) -> float | None:
    """Seconds until the next attempt, None: there is none. `attempt` counts from 1, `chance` is between 0 and 1.

    A call is repeatable that changes nothing, or that Rivya takes once for its `Idempotency-Key`. Any other is sent
    again only if it never left.
    """
    if attempt >= MOST_ATTEMPTS or not (is_repeatable or not failure.sent):
        return None
    if failure.status is not None and failure.status != 429 and failure.status < 500:
        return None
    if failure.retry_after is not None:
        return failure.retry_after if failure.retry_after <= LONGEST_PAUSE else None
    return float(_FIRST_PAUSE * 2 ** (attempt - 1) * (0.5 + chance))


# The calls of Rivya's that are relayed as they are: path, what a caller needs, how long Rivya may take.


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
    async def opened(self, call: Outgoing) -> AsyncIterator[StreamedResponse]:
        """The answer to a call, open while the block runs; leaving it early ends the call at Rivya.

        Raises `RivyaSilent`, and what the body raises.
        """
        response = await self._within_deadline(call)
        try:
            yield response
        finally:
            await response.aclose()

    async def _within_deadline(self, call: Outgoing) -> StreamedResponse:
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

    async def _open(self, call: Outgoing, patience: Patience) -> StreamedResponse:
        attempt = 1
        while True:
            response, failure = await self._attempt(call, patience)
            pause = self._pause_after(failure, call, attempt)
            if pause is None:
                if isinstance(response, RivyaUnavailable):
                    raise response
                return response
            if isinstance(response, StreamedResponse):
                await response.aclose()
            RETRIES.labels(call.relayed.path).inc()
            log.info("relay.retried", route=call.relayed.name, attempt=attempt, status=failure.status)
            await self._pause(pause)
            attempt += 1

    async def _attempt(self, call: Outgoing, patience: Patience) -> tuple[StreamedResponse | RivyaUnavailable, Failure]:
        try:
            response = await self._client.open(
                call.relayed.method, call.target, silence=patience.silence, headers=call.headers, content=call.body
            )
        except RivyaUnavailable as error:
            return error, Failure(None, sent=error.sent)
        failure = Failure(response.status, retry_after=read_retry_after(response.headers))
        if failure.status == 429:
            await self._report_rate_limit(failure)
        return response, failure

    def _pause_after(self, failure: Failure, call: Outgoing, attempt: int) -> float | None:
        if not isinstance(call.body, bytes | None):
            return None  # what was sent of it is gone
        return pause_before_retry(
            failure,
            attempt=attempt,
            is_repeatable=call.is_repeatable,
            chance=random.random(),  # noqa: S311
        )

    async def _report_rate_limit(self, failure: Failure) -> None:
        with suppress(DatabaseUnavailable):  # the caller's answer does not depend on our database
            await self._note(RivyaRateLimited(429, "rate_limited", retry_after=failure.retry_after))
