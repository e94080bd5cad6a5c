"""The fast path of GET /api/v1/generations/{id}: an authorized read of a known generation."""

import asyncio
import re
from functools import partial

import structlog
from starlette.types import Scope

from app.api.waiting import DEADLINE, READ, GenerationsById, Waiting, generation_in
from app.core.auth import Access, Caller
from app.core.errors import ServiceError
from app.core.json_codec import json_body
from app.core.middleware import (
    ANSWER_LINES,
    HTTP_REQUESTS,
    REQUEST_SECONDS,
    count_call,
    ensure_request_id,
    seconds_since_start,
)
from app.fastpath.application import Exchange
from app.ledger.models import Generation, is_visible
from app.ledger.serializers import render
from app.rivya.payloads import usable_id

log = structlog.stdlib.get_logger(__name__)

PREFIX = "/api/v1/generations/"
_ROUTE = PREFIX + "{generation_id}"
_COUNTED, _SECONDS = HTTP_REQUESTS.labels(_ROUTE, "GET", 200), REQUEST_SECONDS.labels(_ROUTE)
_WAIT = re.compile(rb"(?:wait=([0-9]{1,9}))?")
_BEARER = b"bearer "
_END = "generation_read_end"
_HEADERS = b"content-type: application/json\r\n" + ANSWER_LINES + b"x-request-id: %b\r\n"


class FastGenerationRead:
    """Answers 200; all other requests and all errors go to the documented route (`app.api.generations`)."""

    def __init__(self, waiting: Waiting, access: Access) -> None:
        self._waiting = waiting
        self._access = access
        self._written: tuple[Generation, bytes] | None = None
        """The last generation rendered, and its bytes: all callers that wait for it get the same bytes."""

    def __call__(self, scope: Scope, body: bytes, exchange: Exchange) -> bool:
        """`app.fastpath.application.FastHandler`."""
        generation_id, query = scope["path"][len(PREFIX) :], scope["query_string"]
        wait = _WAIT.fullmatch(query)
        is_plain = scope["method"] == "GET" and not body and "/" not in generation_id
        if not is_plain or wait is None or usable_id(generation_id) is None:
            return False
        caller = self._reader(scope)
        if caller is None:
            return False
        if wait[1] and caller.owner is not None:
            return False  # the route looks first whether it may wait
        seconds = min(int(wait[1] or 0), self._waiting.max_seconds)
        if seconds and not self._access.may_wait(caller):
            return False  # the route refuses it
        if seconds:
            scope["state"][DEADLINE] = asyncio.get_running_loop().time() + seconds
        leave = self._waiting.add_callback(generation_id, seconds, partial(self._answer, scope, caller, exchange))
        if leave is not None:
            exchange.on_disconnect(leave)
            # Without a read the documented route goes on: it refuses the token.
            scope["state"][_END] = (self._access.watch(caller, leave), self._access.begin_wait(caller))
        return True

    def _reader(self, scope: Scope) -> Caller | None:
        """The caller, if the token is valid; None if the documented route has to decide."""
        token = None
        for name, value in scope["headers"]:
            if name == b"prefer":
                return None
            if name == b"authorization":
                if token is not None or value[: len(_BEARER)].lower() != _BEARER:
                    return None  # another scheme, or the header twice: the route has its rules for that
                token = value[len(_BEARER) :].decode("latin-1")
        try:
            return self._access.caller(token)  # every role may read
        except ServiceError:
            return None

    def _answer(
        self, scope: Scope, caller: Caller, exchange: Exchange, answer: "asyncio.Future[GenerationsById] | None"
    ) -> None:
        """Never raises, since no caller would catch it."""
        try:
            for end in scope["state"].pop(_END, ()):
                end()
            if exchange.is_abandoned:
                count_call(scope, caller, _ROUTE, "abandoned", status=None)
                return
            scope["state"][READ] = answer
            generation = generation_in(answer, scope["path"][len(PREFIX) :]) if answer is not None else None
            if generation is None or not is_visible(generation, caller.owner):
                exchange.fall_back()
            else:
                exchange.respond(_HEADERS % ensure_request_id(scope).encode(), self._body(generation))
                _COUNTED.inc()
                _SECONDS.observe(seconds_since_start(scope))
                count_call(scope, caller, _ROUTE, "succeeded", status=200)
        except Exception:
            log.exception("fast_path.failed")
            exchange.fall_back()

    def _body(self, generation: Generation) -> bytes:
        if self._written is None or self._written[0] is not generation:
            self._written = (generation, json_body(render(generation)))
        return self._written[1]
