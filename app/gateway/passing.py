"""Answers a caller with what Rivya answers, piece by piece as it comes, and ends both calls together."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.core.middleware import note_result
from app.gateway.caller import Caller
from app.gateway.caller_errors import CallerGone
from app.gateway.curfew import Curfew, Stopping
from app.gateway.headers import back
from app.gateway.relay import Outgoing, Relay
from app.gateway.slots import Slots
from app.rivya.errors import RivyaUnavailable
from app.rivya.transport import Passage

log = structlog.stdlib.get_logger(__name__)

Prepare = Callable[[Caller], Awaitable[Outgoing]]


class PassedOn(Response):
    """Calls Rivya when it is sent. Raises `ServiceError`s before the answer has begun, and nothing after."""

    def __init__(self, prepare: Prepare, relay: Relay, slots: Slots, curfew: Curfew) -> None:
        super().__init__()
        self._prepare = prepare
        self._relay = relay
        self._slots = slots
        self._curfew = curfew
        self._has_begun = False
        self._is_told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay until the answer is over, Rivya breaks off, the caller leaves, or the process stops."""
        caller = Caller(receive)
        with self._slots.taken():
            passing = asyncio.create_task(self._pass_on(caller, scope, send))
            leaving = asyncio.create_task(caller.gone())
            stopping = asyncio.create_task(self._curfew.over())
            tasks = {passing, leaving, stopping}
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if passing.done() or self._is_told:
                    await passing
                elif leaving.done():
                    _note_abandoned(scope)
                else:
                    self._stop(scope)
            except CallerGone:
                _note_abandoned(scope)
            finally:
                for task in tasks:
                    task.cancel()  # which also ends the call at Rivya
                await asyncio.gather(*tasks, return_exceptions=True)

    def _stop(self, scope: Scope) -> None:
        if not self._has_begun:
            raise Stopping
        log.warning("relay.stopped")
        note_result(scope, "broken")

    async def _pass_on(self, caller: Caller, scope: Scope, send: Send) -> None:
        call = await self._prepare(caller)
        async with self._relay.opened(call) as passage:
            self._has_begun = True
            await send({"type": "http.response.start", "status": passage.status, "headers": back(passage.raw_headers)})
            try:
                await self._pump(passage, send)
            except RivyaUnavailable as error:
                # The answer is left without its end: the server cuts the connection, and the caller sees that it broke.
                log.warning("relay.broken", route=call.relayed.name, reason=str(error))
                note_result(scope, "broken")

    async def _pump(self, passage: Passage, send: Send) -> None:
        async for piece in passage.pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        self._is_told = True  # the server calls the end of an answer a disconnect, too
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _note_abandoned(scope: Scope) -> None:
    log.info("relay.abandoned")
    note_result(scope, "abandoned")
