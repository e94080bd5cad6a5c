"""The express lane of GET /api/v1/generations/{id}: a plain read by somebody who may, of a generation that is known."""

import asyncio
from functools import partial

import orjson
from starlette.types import Scope

from app.api.shared_reads import Found, SharedReads
from app.core.access import Access, Caller
from app.core.errors import ServiceError
from app.core.express import Exchange
from app.core.requests import API_CALLS, HTTP_REQUESTS, identified
from app.core.security_headers import ANSWER_LINES
from app.ledger.rendering import render
from app.rivya.storable import usable_name

PREFIX = "/api/v1/generations/"
_ROUTE = PREFIX + "{generation_id}"
_COUNTED = HTTP_REQUESTS.labels(_ROUTE, "GET", 200)
_BEARER = b"bearer "
_HEADERS = b"content-type: application/json\r\n" + ANSWER_LINES + b"x-request-id: %b\r\n"


class GenerationLane:
    """Whatever else is asked, waited for, or refused is the documented route's (`app.api.generations`)."""

    def __init__(self, reads: SharedReads, access: Access) -> None:
        self._reads = reads
        self._access = access

    def __call__(self, scope: Scope, body: bytes, exchange: Exchange) -> bool:
        """`app.core.express.Lane`."""
        generation_id = scope["path"][len(PREFIX) :]
        is_plain = scope["method"] == "GET" and not scope["query_string"] and not body and "/" not in generation_id
        if not is_plain or usable_name(generation_id) is None:
            return False
        caller = self._reader(scope)
        if caller is None:
            return False
        answer = partial(_answer, generation_id, scope, caller, exchange)
        self._reads.ask(generation_id).add_done_callback(answer)
        return True

    def _reader(self, scope: Scope) -> Caller | None:
        """Who asks, and may read; None where that is for the documented route to say."""
        token = None
        for name, value in scope["headers"]:
            if name == b"prefer":
                return None
            if name == b"authorization":
                if token is not None or value[: len(_BEARER)].lower() != _BEARER:
                    return None  # said in another way, or twice: the route has its rules for that
                token = value[len(_BEARER) :].decode("latin-1")
        try:
            return self._access.caller(token)  # every role may read
        except ServiceError:
            return None


def _answer(
    generation_id: str,
    scope: Scope,
    caller: Caller,
    exchange: Exchange,
    found: "asyncio.Future[Found]",
) -> None:
    generation = None
    if not found.cancelled() and found.exception() is None:
        generation = found.result().get(generation_id)
    if generation is None:
        exchange.otherwise()
        return
    _COUNTED.inc()
    API_CALLS.labels(caller.name, _ROUTE, "succeeded").inc()
    exchange.respond(_HEADERS % identified(scope).encode(), orjson.dumps(render(generation)))
