"""What the routes do: pass a call on, or answer it from the catalogue that is kept."""

from dataclasses import dataclass, field
from functools import partial

import orjson
from fastapi import Request, Response

from app.core.errors import ServiceError
from app.gateway import bodies
from app.gateway.answers import WholeAnswer, read_whole
from app.gateway.balance import Balance
from app.gateway.caller import Caller
from app.gateway.calls import CREDITS, MODELS, Relayed
from app.gateway.catalogue import Catalogue, Kept
from app.gateway.curfew import Curfew
from app.gateway.headers import onward
from app.gateway.kinds import Kind
from app.gateway.passing import PassedOn
from app.gateway.relay import Body, Outgoing, Relay
from app.gateway.slots import Slots
from app.rivya.client import segment
from app.rivya.errors import RivyaNotFound


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
    curfew: Curfew = field(default_factory=Curfew)

    def pass_on(self, relayed: Relayed, request: Request) -> Response:
        """The answer of Rivya's to this request."""
        return PassedOn(partial(_prepare, relayed, request), self.relay, self.slots, self.curfew)

    async def models(self, request: Request) -> Response:
        """The list as it is kept; with a query, which may ask for anything, Rivya's own answer."""
        if request.url.query:
            return self.pass_on(MODELS, request)
        found = await self.catalogue.best()
        return found.answer.response(self._age(found)) if isinstance(found, Kept) else found.response()

    async def model(self, model_id: str) -> Response:
        """One entry of the list. Raises `Unknown`."""
        found = await self.catalogue.best()
        if not isinstance(found, Kept):
            return found.response()
        entry = found.entry(model_id)
        if entry is None:
            raise Unknown("model_id: Rivya lists no model with this id; see GET /api/v1/models.")
        headers = [(b"content-type", b"application/json")]
        return WholeAnswer(200, {}, headers, orjson.dumps(entry)).response(self._age(found))

    async def credits(self, request: Request) -> Response:
        """Rivya's answer of this moment, noted for the metrics."""
        with self.slots.taken():
            async with self.relay.opened(_outgoing(CREDITS, request)) as passage:
                answer = await read_whole(passage)
        if answer.ok:
            self.balance.note(answer.body)
        return answer.response()

    def _age(self, kept: Kept) -> tuple[bytes, bytes]:
        return b"age", str(self.catalogue.age(kept)).encode()


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
        return _outgoing(relayed, request, bodies.form(caller, headers))
    return _outgoing(relayed, request, await bodies.whole(caller, headers))
