"""The express lane of GET /api/v1/generations/{id}: a read by somebody who may, of a generation that is known."""

import re
from functools import partial

import orjson
from starlette.types import Scope

from app.api.waiting import Waiting
from app.core.access import Access, Caller
from app.core.errors import ServiceError
from app.core.express import Exchange
from app.core.requests import API_CALLS, HTTP_REQUESTS, identified
from app.ledger.rendering import render
from app.ledger.state import Generation
from app.rivya.storable import usable_name

PREFIX = "/api/v1/generations/"
_ROUTE = PREFIX + "{generation_id}"
_COUNTED = HTTP_REQUESTS.labels(_ROUTE, "GET", 200)
_WAIT = re.compile(rb"(?:wait=([0-9]|[1-5][0-9]|60))?")
_BEARER = b"bearer "
_HEADERS = b"content-type: application/json\r\nx-request-id: %b\r\n"


class GenerationLane:
    """Whatever else is asked, or refused, is the documented route's (`app.api.generations`)."""

    def __init__(self, waiting: Waiting, access: Access) -> None:
        self._waiting = waiting
        self._access = access
        self._written: tuple[Generation, bytes] | None = None
        """What was told last: all who waited for it are told the same."""

    def __call__(self, scope: Scope, body: bytes, exchange: Exchange) -> bool:
        """`app.core.express.Lane`."""
        generation_id, query = scope["path"][len(PREFIX) :], scope["query_string"]
        wait = _WAIT.fullmatch(query)
        is_plain = scope["method"] == "GET" and not body and "/" not in generation_id
        if not is_plain or wait is None or usable_name(generation_id) is None:
            return False
        caller = self._reader(scope)
        if caller is None:
            return False
        self._waiting.tell(generation_id, int(wait[1] or 0), partial(self._answer, scope, caller, exchange))
        return True

    def _reader(self, scope: Scope) -> Caller | None:
        """Who asks, and may read; None where that is for the documented route to say."""
        token = None
        for name, value in scope["headers"]:
            if name == b"prefer":
                return None
            if name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER:
                token = value[len(_BEARER) :].decode("latin-1")
        try:
            return self._access.caller(token)  # every role may read
        except ServiceError:
            return None

    def _answer(self, scope: Scope, caller: Caller, exchange: Exchange, found: Generation | None) -> None:
        if exchange.is_abandoned:
            API_CALLS.labels(caller.name, _ROUTE, "abandoned").inc()
        elif found is None:
            exchange.otherwise()
        else:
            _COUNTED.inc()
            API_CALLS.labels(caller.name, _ROUTE, "succeeded").inc()
            exchange.respond(_HEADERS % identified(scope).encode(), self._body(found))

    def _body(self, found: Generation) -> bytes:
        if self._written is None or self._written[0] is not found:
            self._written = (found, orjson.dumps(render(found)))
        return self._written[1]
