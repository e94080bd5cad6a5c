"""Relays Rivya's answer to the caller piece by piece, ends both calls together, and counts what a chat turn costs."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import Any, Final

import structlog
from prometheus_client import Gauge
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.core.auth import Access, Caller, Unauthorized
from app.core.bodies import ClientDisconnected, until_disconnected
from app.core.errors import DatabaseUnavailable, Overloaded, ServiceError
from app.core.middleware import set_result
from app.core.records import json_object, request_id
from app.gateway.headers import response_headers
from app.gateway.upstream import AnswerUnusable, Outgoing, Relay, UpstreamUnavailable
from app.rivya.errors import RivyaUnavailable
from app.rivya.payloads import plausible_amount
from app.rivya.transport import StreamedResponse
from app.tokens.spending import Spending, check_model

log = structlog.stdlib.get_logger(__name__)

GRACE_SECONDS: Final = 8.0
_LONGEST_LINE: Final = 256 * 1024
_DEEPEST: Final = 4


class Stopping(ServiceError):
    """The process stops before Rivya has answered; with an Idempotency-Key the call can be repeated."""

    status = 503
    code = "stopping"
    message = "The receiver is stopping; the call may have taken effect. Repeat it with the same Idempotency-Key."
    retry_after = 1


class ShutdownDeadline:
    """The end of the grace period in which running calls may finish when the process stops."""

    def __init__(self, *, grace: float = GRACE_SECONDS) -> None:
        self._grace = grace
        self._over = asyncio.Event()

    def start(self) -> None:
        """Begin the grace period, because the process is about to stop."""
        asyncio.get_running_loop().call_later(self._grace, self._over.set)

    async def wait(self) -> None:
        """Return at the end of the grace period, when running calls have to end."""
        await self._over.wait()


UNDER_WAY = Gauge("receiver_rivya_calls_under_way", "Relayed calls that are under way to Rivya.")


class ConcurrencyLimit:
    """The limit of relayed calls that one process runs at once, and of those that one token runs."""

    def __init__(self, most: int, *, is_shared: Callable[[], bool]) -> None:
        self._most = most
        self._is_shared = is_shared
        """Whether several tokens may call: then none has more than half of the slots."""
        self._held: Counter[str] = Counter()

    @property
    def in_use(self) -> int:
        """How many slots are in use."""
        return self._held.total()

    @contextmanager
    def acquire(self, token: str) -> Iterator[None]:
        """Hold a slot for the token of this name while the block runs.

        Raises `Overloaded` at once if none is free: a queue would hide load.
        """
        per_token = (self._most + 1) // 2 if self._is_shared() else self._most
        if self.in_use >= self._most or self._held[token] >= per_token:
            raise Overloaded("Too many calls to Rivya are under way; see RECEIVER_RIVYA_CONCURRENCY.")
        self._held[token] += 1
        UNDER_WAY.inc()
        try:
            yield
        finally:
            self._held[token] -= 1
            UNDER_WAY.dec()


class TurnCharge:
    """The charge of one turn. `begin` it, `feed` the answer's bytes, and `end` it whatever happens."""

    def __init__(self, spending: Spending, caller: Caller, body: bytes, *, key: str | None) -> None:
        """Raises `ModelNotAllowed`."""
        self._spending = spending
        self._caller = caller
        self._model = (json_object(body) or {}).get("model")
        check_model(caller, self._model)
        self._id = f"turn_{request_id()}"
        self._is_keyed = key is not None
        if key is not None:  # Rivya charges once for a key
            self._id = f"turn_{hashlib.sha256(f'{caller.name} {key}'.encode()).hexdigest()}"
        self._pending = bytearray()
        self._credits: float | None = None
        self.status: int | None = None
        """Rivya's, None while there is no answer."""
        self.is_sent = True
        """False: it certainly never reached Rivya."""

    async def begin(self) -> None:
        """Reserve the credits. Raises `TokenLimitReached`, `TokenRateLimited`."""
        await self._spending.begin_turn(self._caller, self._id, str(self._model))

    def feed(self, piece: bytes, *, is_event_stream: bool) -> None:
        """Read the credits from the next bytes of the answer; a later amount replaces an earlier one."""
        self._pending += piece
        if not is_event_stream:
            return
        *lines, rest = bytes(self._pending).split(b"\n")
        self._pending = bytearray(rest[:_LONGEST_LINE])
        for line in lines:
            if line.startswith(b"data:"):
                self._read(line.removeprefix(b"data:"))

    async def end(self) -> None:
        """Count the cost: nothing if Rivya refused the turn, the reserved credits if the cost is not known."""
        self._read(bytes(self._pending).removeprefix(b"data:"))
        is_refused = not self.is_sent or (self.status is not None and 400 <= self.status < 500)
        await self._spending.end_turn(
            self._caller, self._id, 0 if is_refused else self._credits, is_keyed=self._is_keyed
        )

    def _read(self, text: bytes) -> None:
        amount = _credits_in(json_object(text), _DEEPEST)
        if amount is not None:
            self._credits = amount


def _credits_in(value: Any, depth: int) -> float | None:  # noqa: ANN401 - any JSON value
    """The final credits in a JSON value, else the reserved ones, where a member `credits` has them."""
    if not isinstance(value, dict) or depth == 0:
        return None
    amounts = value.get("credits")
    if isinstance(amounts, dict):
        for name in ("final", "reserved"):
            amount = plausible_amount(amounts.get(name))
            if amount is not None:
                return amount
    return next(filter(None, (_credits_in(member, depth - 1) for member in value.values())), None)


MOST_AHEAD: Final = 256 * 1024
"""Bytes of an answer that are read before its status is sent."""


class ProxyResponse(Response):
    """A response that calls Rivya when it is sent. Raises `ServiceError` only before the answer has begun."""

    def __init__(
        self,
        call: Outgoing,
        relay: Relay,
        limit: ConcurrencyLimit,
        shutdown_deadline: ShutdownDeadline,
        *,
        access: Access,
        charge: TurnCharge | None = None,
    ) -> None:
        super().__init__()
        self._charge = charge
        self._access = access
        self._relay = relay
        self._limit = limit
        self._stream_deadline = shutdown_deadline
        self._is_body_read = asyncio.Event()
        if isinstance(call.body, AsyncIterator):
            call = replace(call, body=self._watched(call.body))
        else:
            self._is_body_read.set()
        self._call = call
        self._has_begun = False
        self._is_sent = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay until the answer ends, Rivya breaks off, the caller disconnects or is revoked, or the process stops."""
        caller = scope["state"]["caller"]
        async with AsyncExitStack() as stack:
            stack.enter_context(self._limit.acquire(caller.name))
            if self._charge is not None:
                await self._charge.begin()
                stack.push_async_callback(self._end_charge)
            try:
                async with self._access.while_valid(caller):
                    await self._relay_until_over(scope, receive, send)
            except Unauthorized:
                if not self._has_begun:
                    raise
                log.info("relay.revoked")  # no end of the answer is sent, so the server cuts the connection
                set_result(scope, "broken")

    async def _end_charge(self) -> None:
        """Count the turn, once; a caller that leaves does not cancel it. Without the database it stays reserved."""
        charge, self._charge = self._charge, None
        if charge is not None:
            with suppress(DatabaseUnavailable):
                await asyncio.shield(charge.end())

    async def _relay_until_over(self, scope: Scope, receive: Receive, send: Send) -> None:
        relaying = asyncio.create_task(self._relay_answer(scope, send))
        leaving = asyncio.create_task(self._disconnected(receive))
        stopping = asyncio.create_task(self._stream_deadline.wait())
        tasks = {relaying, leaving, stopping}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if relaying.done() or self._is_sent:
                await relaying
            elif leaving.done():
                _log_abandoned(scope)
            else:
                self._stop(scope)
        except ClientDisconnected:
            _log_abandoned(scope)
        finally:
            for task in tasks:
                task.cancel()  # which also ends the call at Rivya
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watched(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in body:
            yield piece
        self._is_body_read.set()

    async def _disconnected(self, receive: Receive) -> None:
        """Return when the caller has disconnected after its body; before its end, reading the body raises."""
        await self._is_body_read.wait()
        await until_disconnected(receive)

    def _stop(self, scope: Scope) -> None:
        if not self._has_begun:
            raise Stopping
        log.warning("relay.stopped")
        set_result(scope, "broken")

    async def _relay_answer(self, scope: Scope, send: Send) -> None:
        call = self._call
        async with self._opened(call) as response:
            pieces, status = response.iter_bytes(), response.status
            start, is_whole = await _read_ahead(response, pieces)
            self._feed(start, response)
            if is_whole and call.asked_id is not None and not is_about(call.asked_id, start):
                raise AnswerUnusable("Rivya's answer is about something else.")
            headers = response_headers(response.raw_headers, status=status, length=len(start) if is_whole else None)
            if is_whole:
                await self._end_charge()
            elif response.is_event_stream:
                headers.append((b"x-accel-buffering", b"no"))  # or nginx holds events back until a buffer is full
            self._has_begun = True
            await send({"type": "http.response.start", "status": status, "headers": headers})
            try:
                await self._pump(start, pieces, send, response)
            except RivyaUnavailable as error:
                # No end of the answer is sent, so the server cuts the connection and the caller notices the break.
                log.warning("relay.broken", route=call.relayed.name, reason=str(error))
                set_result(scope, "broken")

    @asynccontextmanager
    async def _opened(self, call: Outgoing) -> AsyncIterator[StreamedResponse]:
        try:
            async with self._relay.opened(call) as response:
                if self._charge is not None:
                    self._charge.status = response.status
                yield response
        except UpstreamUnavailable as error:
            if self._charge is not None and not error.sent:
                self._charge.is_sent = False
            raise

    def _feed(self, piece: bytes, response: StreamedResponse) -> None:
        if self._charge is not None:
            self._charge.feed(piece, is_event_stream=response.is_event_stream)

    async def _pump(self, start: bytes, pieces: AsyncIterator[bytes], send: Send, response: StreamedResponse) -> None:
        if start:
            await send({"type": "http.response.body", "body": start, "more_body": True})
        async for piece in pieces:
            self._feed(piece, response)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._end_charge()  # before the end is sent: a caller that has the whole stream finds it counted
        self._is_sent = True  # the server reports a disconnect at the end of an answer, too
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _read_ahead(response: StreamedResponse, pieces: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """The first bytes of an answer, and whether they are all: a small one is relayed only if it arrives whole.

    Events are not waited for. Raises `AnswerUnusable`.
    """
    if response.is_event_stream and response.status == 200:
        return b"", False
    body = bytearray()
    try:
        async for piece in pieces:
            body += piece
            if len(body) > MOST_AHEAD:
                return bytes(body), False
    except RivyaUnavailable:
        raise AnswerUnusable("Rivya's answer broke off; the call may have taken effect.") from None
    return bytes(body), True


def is_about(asked_id: str, body: bytes) -> bool:
    """False if a JSON answer names ids, and none of them is the one that was asked for."""
    answer = json_object(body) or {}
    ids = [answer[name] for name in ("id", "file_id", "session_id") if isinstance(answer.get(name), str)]
    return not ids or asked_id in ids


def _log_abandoned(scope: Scope) -> None:
    log.info("relay.abandoned")
    set_result(scope, "abandoned")
