"""What the routes do: pass a call on, or answer it from the catalogue that is kept."""

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
from app.gateway.errors import BodyTooLarge
from app.gateway.headers import Headers, declared_length, onward, value_of
from app.gateway.models_cache import CachedModels, Catalogue, WholeAnswer, read_whole
from app.gateway.streaming import Caller, PassedOn, Slots, StreamDeadline
from app.gateway.upload_limit import FormMeter
from app.gateway.upstream import CREDITS, MODELS, Body, Kind, Outgoing, Relay, Relayed
from app.rivya.client import segment
from app.rivya.errors import PayloadUnreadable, RivyaNotFound
from app.rivya.payloads import read_credits

# The bodies of relayed calls: small ones read whole, so that they can be sent again, forms passed through.


MOST_BYTES: Final = 1024 * 1024
"""Of a chat turn; files travel by themselves."""


async def whole(caller: Caller, headers: Headers) -> bytes:
    """A chat turn's body. Raises `BodyTooLarge`, unread where its length is announced, and what `Caller` does."""
    if (declared_length(headers) or 0) > MOST_BYTES:
        raise BodyTooLarge(f"The body is larger than {MOST_BYTES} bytes.")
    return await caller.body(most_bytes=MOST_BYTES)


def form(caller: Caller, headers: Headers) -> AsyncIterator[bytes]:
    """A form as it comes, never more than one piece of it in memory. Raises `BodyTooLarge` as soon as that is known."""
    meter = FormMeter(value_of(headers, b"content-type") or "", declared=declared_length(headers))
    meter.begin()
    return _metered(caller, meter)


async def _metered(caller: Caller, meter: FormMeter) -> AsyncIterator[bytes]:
    async for piece in caller.pieces():
        meter.feed(piece)
        yield piece


# The credits that Rivya last told of, and how long ago that was, as metrics.


ACCOUNT_CREDITS = Gauge(
    "receiver_rivya_credits", "Credits of the account when they were last asked for; NaN before that."
)
AGE = Gauge("receiver_rivya_credits_age_seconds", "Time since the credits were last told; NaN before that.")


class Balance:
    """Remembers the last balance for the metrics, and for nothing else: callers always get Rivya's own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._recorded_at: float | None = None
        ACCOUNT_CREDITS.set(math.nan)
        AGE.set_function(self._age)

    def record(self, body: bytes) -> None:
        """Rivya answered with this; what can't be read changes nothing."""
        try:
            ACCOUNT_CREDITS.set(float(read_credits(body)))
        except PayloadUnreadable:
            return
        self._recorded_at = self._clock.monotonic()

    def _age(self) -> float:
        return math.nan if self._recorded_at is None else self._clock.monotonic() - self._recorded_at


class Unknown(ServiceError):
    """Nothing of Rivya's can have this id."""

    status = 404
    code = "not_found"


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the routes work with."""

    relay: Relay
    slots: Slots
    catalogue: Catalogue
    balance: Balance
    stream_deadline: StreamDeadline = field(default_factory=StreamDeadline)

    def pass_on(self, relayed: Relayed, request: Request) -> Response:
        """The answer of Rivya's to this request."""
        return PassedOn(partial(_prepare, relayed, request), self.relay, self.slots, self.stream_deadline)

    async def models(self, request: Request) -> Response:
        """The list as it is kept; with a query, which may ask for anything, Rivya's own answer."""
        if request.url.query:
            return self.pass_on(MODELS, request)
        models = await self.catalogue.best()
        return models.answer.response(self._age(models)) if isinstance(models, CachedModels) else models.response()

    async def model(self, model_id: str) -> Response:
        """One entry of the list. Raises `Unknown`."""
        models = await self.catalogue.best()
        if not isinstance(models, CachedModels):
            return models.response()
        entry = models.entry(model_id)
        if entry is None:
            raise Unknown("model_id: Rivya lists no model with this id; see GET /api/v1/models.")
        headers = [(b"content-type", b"application/json")]
        return WholeAnswer(200, {}, headers, orjson.dumps(entry)).response(self._age(models))

    async def credits(self, request: Request) -> Response:
        """Rivya's answer of this moment, noted for the metrics."""
        with self.slots.taken():
            async with self.relay.opened(_outgoing(CREDITS, request)) as response:
                answer = await read_whole(response)
        if answer.ok:
            self.balance.record(answer.body)
        return answer.response()

    def _age(self, models: CachedModels) -> tuple[bytes, bytes]:
        return b"age", str(self.catalogue.age(models)).encode()


def _outgoing(relayed: Relayed, request: Request, body: Body = None) -> Outgoing:
    """The call as it leaves, with the caller's query as it came. Raises `Unknown`."""
    try:
        target = relayed.path.format(**{name: segment(value) for name, value in request.path_params.items()})
    except RivyaNotFound as error:
        raise Unknown("There is nothing of Rivya's with this id.") from error
    query = f"?{request.url.query}" if request.url.query else ""
    headers = onward(request.headers.raw)
    if body is None:  # a length without a body would have Rivya wait for one
        headers = [(name, value) for name, value in headers if name != b"content-length"]
    return Outgoing(relayed, target + query, headers, body)


async def _prepare(relayed: Relayed, request: Request, caller: Caller) -> Outgoing:
    """Read of the caller's body what must be known before Rivya is called."""
    headers = request.headers.raw
    if relayed.kind is Kind.READ:
        caller.sends_nothing()
        return _outgoing(relayed, request)
    if relayed.kind is Kind.UPLOAD:
        return _outgoing(relayed, request, form(caller, headers))
    return _outgoing(relayed, request, await whole(caller, headers))
