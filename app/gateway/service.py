"""The work of the routes: relay a call, or answer it from the cached models."""

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import orjson
from fastapi import Request, Response
from prometheus_client import Gauge

from app.core.clock import Clock
from app.core.errors import ServiceError
from app.gateway.errors import AnswerUnusable, BodyTooLarge
from app.gateway.headers import Headers, declared_length, onward, value_of
from app.gateway.models_cache import CachedModels, Catalogue, WholeAnswer, read_whole
from app.gateway.streaming import Caller, PassedOn, Slots, StreamDeadline
from app.gateway.upload_limit import FormMeter
from app.gateway.upstream import CREDITS, MODELS, Body, Kind, Outgoing, Relay, Relayed
from app.rivya.client import segment
from app.rivya.errors import PayloadUnreadable, RivyaNotFound
from app.rivya.payloads import read_credits

MOST_BYTES: Final = 1024 * 1024
"""Of a chat turn, which is read whole so that it can be sent again; files are uploaded separately."""


async def whole(caller: Caller, headers: Headers) -> bytes:
    """A chat turn's body. Raises `BodyTooLarge`, from the declared length without reading, and as `Caller.body`."""
    if (declared_length(headers) or 0) > MOST_BYTES:
        raise BodyTooLarge(f"The body is larger than {MOST_BYTES} bytes.")
    return await caller.body(most_bytes=MOST_BYTES)


def form(caller: Caller, headers: Headers) -> AsyncIterator[bytes]:
    """The pieces of a form, with one at a time in memory. Raises `BodyTooLarge` as soon as that is known."""
    meter = FormMeter(value_of(headers, b"content-type") or "", declared=declared_length(headers))
    meter.check()
    return _metered(caller, meter)


async def _metered(caller: Caller, meter: FormMeter) -> AsyncIterator[bytes]:
    async for piece in caller.pieces():
        meter.feed(piece)
        yield piece


ACCOUNT_CREDITS = Gauge(
    "receiver_rivya_credits", "Credits of the account when they were last asked for; NaN before that."
)
AGE = Gauge("receiver_rivya_credits_age_seconds", "Time since the credits were last told; NaN before that.")


class Balance:
    """The last balance and its age, for the metrics only; callers always get Rivya's answer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._recorded_at: float | None = None
        ACCOUNT_CREDITS.set(math.nan)
        AGE.set_function(self._age)

    def record(self, body: bytes) -> None:
        """Record the credits of an answer of Rivya's; one that can't be read changes nothing."""
        try:
            ACCOUNT_CREDITS.set(float(read_credits(body)))
        except PayloadUnreadable:
            return
        self._recorded_at = self._clock.monotonic()

    def _age(self) -> float:
        return math.nan if self._recorded_at is None else self._clock.monotonic() - self._recorded_at


class Unknown(ServiceError):
    """Nothing at Rivya has this id."""

    status = 404
    code = "not_found"


@dataclass(frozen=True, slots=True)
class Gateway:
    """The calls that the routes relay or answer."""

    relay: Relay
    slots: Slots
    catalogue: Catalogue
    balance: Balance
    stream_deadline: StreamDeadline = field(default_factory=StreamDeadline)

    def pass_on(self, relayed: Relayed, request: Request) -> Response:
        """Rivya's answer to this request, relayed as it arrives."""
        return PassedOn(partial(_prepare, relayed, request), self.relay, self.slots, self.stream_deadline)

    async def models(self, request: Request) -> Response:
        """The cached list; Rivya's own answer if there is a query, whose effect we don't know."""
        if request.url.query:
            return self.pass_on(MODELS, request)
        models = await self.catalogue.best()
        return models.answer.response(self._age(models)) if isinstance(models, CachedModels) else models.response()

    async def model(self, model_id: str) -> Response:
        """One entry of the list, or Rivya's error. Raises `Unknown`, and `AnswerUnusable` if there is no list."""
        models = await self.catalogue.best()
        if not isinstance(models, CachedModels):
            if models.status < 400:
                raise AnswerUnusable("Rivya's answer is no list of models.")
            return models.response()
        entry = models.entry(model_id)
        if entry is None:
            raise Unknown("model_id: Rivya lists no model with this id; see GET /api/v1/models.")
        headers = [(b"content-type", b"application/json")]
        return WholeAnswer(200, {}, headers, orjson.dumps(entry)).response(self._age(models))

    async def credits(self, request: Request) -> Response:
        """Rivya's current answer, recorded for the metrics."""
        with self.slots.taken():
            async with self.relay.opened(_outgoing(CREDITS, request)) as response:
                answer = await read_whole(response)
        if answer.ok:
            self.balance.record(answer.body)
        return answer.response()

    def _age(self, models: CachedModels) -> tuple[bytes, bytes]:
        return b"age", str(self.catalogue.age(models)).encode()


def _outgoing(relayed: Relayed, request: Request, body: Body = None) -> Outgoing:
    """The call to send to Rivya, with the caller's query unchanged. Raises `Unknown`."""
    try:
        target = relayed.path.format(**{name: segment(value) for name, value in request.path_params.items()})
    except RivyaNotFound as error:
        raise Unknown("There is nothing of Rivya's with this id.") from error
    query = f"?{request.url.query}" if request.url.query else ""
    headers = onward(request.headers.raw)
    if body is None:  # with a length and no body, Rivya would wait for the body
        headers = [(name, value) for name, value in headers if name != b"content-length"]
    return Outgoing(relayed, target + query, headers, body, asked_id=next(iter(request.path_params.values()), None))


async def _prepare(relayed: Relayed, request: Request, caller: Caller) -> Outgoing:
    """The call to send to Rivya, with the caller's body: none, whole, or in pieces for an upload."""
    headers = request.headers.raw
    if relayed.kind is Kind.READ:
        caller.sends_nothing()
        return _outgoing(relayed, request)
    if relayed.kind is Kind.UPLOAD:
        return _outgoing(relayed, request, form(caller, headers))
    return _outgoing(relayed, request, await whole(caller, headers))
