"""The work of the routes: relay a call, or answer it from the cached models."""

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from fastapi import Request, Response
from prometheus_client import Gauge

from app.core.auth import Access, Forbidden
from app.core.bodies import declared_length, iter_body, read_body
from app.core.clock import Clock
from app.core.errors import NotFound
from app.core.records import json_body, json_object
from app.gateway.headers import request_headers
from app.gateway.models_cache import CachedModels, ModelsCache, WholeAnswer, read_whole
from app.gateway.streaming import ConcurrencyLimit, ProxyResponse, ShutdownDeadline, TurnCharge
from app.gateway.upload_limit import UploadLimit
from app.gateway.upstream import (
    CREDITS,
    GET_FILE,
    GET_SESSION,
    LIST_SESSIONS,
    MODELS,
    AnswerUnusable,
    Body,
    Kind,
    Outgoing,
    Relay,
    Relayed,
)
from app.rivya.client import segment
from app.rivya.errors import RivyaNotFound
from app.rivya.payloads import PayloadUnreadable, read_credits
from app.tokens.spending import Spending

MOST_BYTES: Final = 1024 * 1024
"""Of a chat turn, which is read whole so that it can be sent again; files are uploaded separately."""

# The account has one set of chat sessions and files, and Rivya does not know our tokens.
_SHARED: Final = (GET_FILE, LIST_SESSIONS, GET_SESSION)
_SHARED_MEMBERS: Final = frozenset({"session_id", "attachments"})
_NOT_FENCED: Final = "Chat sessions and files are the whole account's; a token that sees only its own can't reach them."


async def _form(request: Request) -> AsyncIterator[bytes]:
    """The pieces of a form, with one at a time in memory. Raises `BodyTooLarge` as soon as that is known."""
    headers = request.headers
    upload_limit = UploadLimit(headers.get("content-type", ""), declared=declared_length(headers.raw))
    upload_limit.check()
    async for piece in iter_body(request.receive):
        upload_limit.feed(piece)
        yield piece


ACCOUNT_CREDITS = Gauge(
    "receiver_rivya_credits", "Credits of the account when they were last asked for; NaN before that."
)
AGE = Gauge("receiver_rivya_credits_age_seconds", "Time since Rivya last reported the credits; NaN before that.")


class Balance:
    """The last balance and its age, for metrics and the console; callers always get Rivya's answer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._credits = math.nan
        self._recorded_at: float | None = None
        ACCOUNT_CREDITS.set(math.nan)
        AGE.set_function(self._age)

    def record(self, body: bytes) -> None:
        """Record the credits of an answer of Rivya's; one that can't be read changes nothing."""
        try:
            self._credits = float(read_credits(body))
        except PayloadUnreadable:
            return
        ACCOUNT_CREDITS.set(self._credits)
        self._recorded_at = self._clock.monotonic()

    def latest(self, *, within: timedelta) -> float | None:
        """The credits, if Rivya has reported them within this time."""
        return self._credits if self._age() <= within.total_seconds() else None

    def _age(self) -> float:
        return math.nan if self._recorded_at is None else self._clock.monotonic() - self._recorded_at


@dataclass(frozen=True, slots=True)
class Gateway:
    """The calls that the routes relay or answer."""

    relay: Relay
    limit: ConcurrencyLimit
    models_cache: ModelsCache
    balance: Balance
    access: Access
    spending: Spending
    shutdown_deadline: ShutdownDeadline = field(default_factory=ShutdownDeadline)

    async def proxy(self, relayed: Relayed, request: Request) -> Response:
        """Rivya's answer to this request, relayed as it arrives; it holds a slot, but not while a chat turn comes.

        Raises `BodyTooLarge`, `BodyIncomplete`, `NotFound` for an id that no path of Rivya's can hold, and `Forbidden`
        for a fenced token where Rivya would answer with what other tokens have made.
        """
        is_fenced = request.state.caller.role.is_fenced
        if is_fenced and relayed in _SHARED:
            raise Forbidden(_NOT_FENCED)
        body: Body = None
        charge = None
        if relayed.kind is Kind.UPLOAD:
            body = _form(request)
        elif relayed.kind is not Kind.READ:
            body = await read_body(request.scope, request.receive, most_bytes=MOST_BYTES)
            if is_fenced and not _SHARED_MEMBERS.isdisjoint(json_object(body) or {}):
                raise Forbidden(_NOT_FENCED)
            key = request.headers.get("idempotency-key")
            charge = TurnCharge(self.spending, request.state.caller, body, key=key)
        return ProxyResponse(
            _outgoing(relayed, request, body),
            self.relay,
            self.limit,
            self.shutdown_deadline,
            access=self.access,
            charge=charge,
        )

    async def models(self, request: Request) -> Response:
        """The cached list; Rivya's own answer if there is a query, whose effect we don't know."""
        if request.url.query:
            return await self.proxy(MODELS, request)
        models = await self.models_cache.best()
        return models.answer.response(self._age(models)) if isinstance(models, CachedModels) else models.response()

    async def model(self, model_id: str) -> Response:
        """One entry of the list, or Rivya's error. Raises `NotFound`, and `AnswerUnusable` if there is no list."""
        models = await self.models_cache.best()
        if not isinstance(models, CachedModels):
            if models.status < 400:
                raise AnswerUnusable("Rivya's answer is no list of models.")
            return models.response()
        entry = models.entry(model_id)
        if entry is None:
            raise NotFound("model_id: Rivya lists no model with this id; see GET /api/v1/models.")
        headers = [(b"content-type", b"application/json")]
        return WholeAnswer(200, {}, json_body(entry), headers).response(self._age(models))

    async def credits(self, request: Request) -> Response:
        """Rivya's current answer, recorded for the metrics."""
        with self.limit.acquire(request.state.caller.name):
            async with self.relay.opened(_outgoing(CREDITS, request)) as response:
                answer = await read_whole(response)
        if answer.ok:
            self.balance.record(answer.body)
        return answer.response()

    def _age(self, models: CachedModels) -> tuple[bytes, bytes]:
        return b"age", str(self.models_cache.age(models)).encode()


def _outgoing(relayed: Relayed, request: Request, body: Body = None) -> Outgoing:
    """The call to send to Rivya, with the caller's query unchanged. Raises `NotFound`."""
    try:
        target = relayed.path.format(**{name: segment(value) for name, value in request.path_params.items()})
    except RivyaNotFound as error:
        raise NotFound("There is nothing of Rivya's with this id.") from error
    query = f"?{request.url.query}" if request.url.query else ""
    headers = request_headers(request.headers.raw)
    if body is None:  # with a length and no body, Rivya would wait for the body
        headers = [(name, value) for name, value in headers if name != b"content-length"]
    return Outgoing(relayed, target + query, headers, body, asked_id=next(iter(request.path_params.values()), None))
