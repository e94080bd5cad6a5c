"""The few answers that intake gives, as ready-made bytes where they never vary."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import orjson
import structlog
from starlette.types import Scope, Send

from app.core.errors import ServiceError
from app.core.express import Exchange
from app.core.middleware import HTTP_REQUESTS, count, identified
from app.intake.signature_refused import SignatureRefused
from app.ledger.decide import Recorded
from app.ledger.models import Report

log = structlog.stdlib.get_logger(__name__)

ROUTE = "/rivya/webhook"
"""As requests are counted: never with the key."""

_RECORDED = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
_UNAUTHORIZED = b"401 Unauthorized"
_NOTHING_MORE = {"type": "http.response.body", "body": b""}
_TAKEN = HTTP_REQUESTS.labels(ROUTE, "POST", 200)


def count_recorded() -> None:
    """One more was answered 200."""
    _TAKEN.inc()


async def send_ok(send: Send, body: bytes = b"") -> None:
    """200: recorded now, or known already, and then no more, since Rivya needs neither a body nor our request id.

    `body` answers a probe of our own.
    """
    count_recorded()
    if body:
        await _send(send, 200, body, {})
        return
    await send(_RECORDED)
    await send(_NOTHING_MORE)


@dataclass(slots=True)
class Attempt:
    """What the express lane has done with a delivery, in the scope's `state`: the route does none of it again."""

    report: Report | None = None
    """Verified, and counted as that."""
    error: ServiceError | None = None
    """Why it was refused or could not be recorded, and then the time it had is over or of no use."""
    is_recorded: bool = False


class AnswerInLane:
    """For the express lane: 200 once it is committed, and the ordinary way where it could not be."""

    __slots__ = ("_attempt", "_exchange", "_is_told")

    def __init__(self, exchange: Exchange, attempt: Attempt) -> None:
        self._exchange = exchange
        self._attempt = attempt
        self._is_told = False

    def done(self) -> bool:
        """It has been answered."""
        return self._is_told

    def set_result(self, recorded: Recorded, /) -> None:  # noqa: ARG002 - all are answered alike
        """It is committed."""
        self._is_told = self._attempt.is_recorded = True
        try:
            self._exchange.respond()
            count_recorded()
        except Exception:
            log.exception("fast_path.failed")
            self._exchange.otherwise()

    def set_exception(self, error: ServiceError, /) -> None:
        """It is not."""
        if not self._is_told:
            self._is_told = True
            self._attempt.error = error
            self._exchange.otherwise()


async def send_error(scope: Scope, send: Send, error: ServiceError) -> None:
    """The error in Rivya's shape, with `Retry-After` where trying again makes sense."""
    body, headers = _rendered(scope, error)
    count(ROUTE, scope["method"], error.status)
    await _send(send, error.status, body, headers)


def respond_unauthorized(scope: Scope, exchange: Exchange, error: SignatureRefused) -> None:
    """The same for the express lane, for a signature that is not right."""
    body, headers = _rendered(scope, error)
    lines = [b"content-type: application/json", *(b"%b: %b" % header for header in headers.items()), b""]
    exchange.respond(b"\r\n".join(lines), body, status=_UNAUTHORIZED)
    count(ROUTE, scope["method"], error.status)


def _rendered(scope: Scope, error: ServiceError) -> tuple[bytes, Mapping[bytes, bytes]]:
    """The body of an error, and the headers that vary."""
    extra = error.told if isinstance(error, SignatureRefused) else {}
    identity = identified(scope)
    told = {"code": error.code, "message": error.message, "requestId": identity, **extra}
    headers = {b"x-request-id": identity.encode()}
    if error.retry_after is not None:
        headers[b"retry-after"] = str(math.ceil(error.retry_after)).encode()
    if error.status == 405:
        headers[b"allow"] = b"POST"
    return orjson.dumps({"error": told}), headers


async def _send(send: Send, status: int, body: bytes, headers: Mapping[bytes, bytes]) -> None:
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers.items()]})
    await send({"type": "http.response.body", "body": body})
