"""POST /rivya/webhook and /rivya/webhook/{key}: a delivery is answered 2xx only once it is committed."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol

import structlog
from starlette.types import Receive, Scope, Send

from app.core.clock import Clock
from app.core.errors import DatabaseUnavailable, ServiceError
from app.core.express import Exchange
from app.core.middleware import identified
from app.intake.answers import ROUTE, AnswerInLane, Attempt, respond_unauthorized, send_error, send_ok
from app.intake.reading import BodyIncomplete, BodyTooLarge, read_body
from app.intake.refusals import Refusal, Refusals
from app.intake.signature_refused import SignatureRefused
from app.intake.translate import as_unreadable, is_delivery, to_report
from app.ledger.decide import Recorded
from app.ledger.models import Report
from app.ledger.recorder import RecordFailed
from app.ledger.write_queue import PATIENCE, Answer
from app.rivya.signature import RawHeaders, Reason, Refused, Verified

log = structlog.stdlib.get_logger(__name__)

_ATTEMPT = "delivery_attempt"


class Verification(Protocol):
    """Knows the secrets that are current, and how deliveries are signed."""

    @property
    def is_read(self) -> bool:
        """What is stored has been read; before that, no secret is known."""

    def endpoint_id(self, path_key: str | None) -> str | None:
        """Which endpoint of ours has this path key."""

    def at_once(
        self, headers: RawHeaders, body: bytes, path_key: str | None, now: datetime
    ) -> Verified | Refused | None:
        """What `verify` would say, where nothing has to be waited for or written down first; None says nothing."""

    async def verify(self, headers: RawHeaders, body: bytes, path_key: str | None) -> Verified | Refused:
        """Whether Rivya signed it. Raises `ServiceError` where that can't be told at the moment."""


class Health(Protocol):
    """Is told how deliveries fare."""

    def note_verified(self, endpoint_id: str | None, at: datetime) -> None:
        """A delivery was verified."""

    def note_refused(self, endpoint_id: str | None, at: datetime) -> None:
        """A delivery was refused."""


class Intake:
    """An ASGI application for everything under /rivya/webhook."""

    path = ROUTE

    def __init__(
        self,
        verification: Verification,
        health: Health,
        refusals: Refusals,
        record: Callable[[Report], Awaitable[Recorded]],
        *,
        submit: Callable[[Report, Answer], None] | None = None,
        clock: Clock,
        most_bytes: int,
        probed: Callable[[RawHeaders, bytes, datetime], bytes | None],
    ) -> None:
        self._verification = verification
        self._health = health
        self._refusals = refusals
        self._record = record
        self._submit = submit
        self._clock = clock
        self._most_bytes = most_bytes
        self._probed = probed
        """What to answer to a probe of our own; None to everything else."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it; no bytes in it make this raise."""
        attempt: Attempt | None = scope.get("state", {}).get(_ATTEMPT)
        if attempt is not None and attempt.error is not None and not isinstance(attempt.error, RecordFailed):
            await send_error(scope, send, attempt.error)
            return
        try:
            answer = await (self._take(scope, receive) if attempt is None else self._go_on(attempt))
        except BodyIncomplete:
            await send_error(scope, send, ServiceError("The body did not come.", status=408, code="body_incomplete"))
        except ServiceError as error:
            await send_error(scope, send, error)
        except Exception:  # the web boundary: whatever it was, the sender is to come again
            log.exception("delivery.failed", request_id=identified(scope))
            await send_error(scope, send, ServiceError("Not recorded.", status=503, code="not_recorded", retry_after=5))
        else:
            await send_ok(send, answer)

    def lane(self, scope: Scope, body: bytes, exchange: Exchange) -> bool:
        """A POST that is verified at once and for whose report there is room, or refused at once; a `Lane`."""
        if scope["method"] != "POST" or len(body) > self._most_bytes or self._submit is None:
            return False
        now, headers, path_key = self._clock.now(), scope["headers"], _path_key(scope)
        verified = self._verification.at_once(headers, body, path_key, now)
        if not isinstance(verified, Verified):
            return verified is not None and self._refuse(scope, body, path_key, verified, exchange)
        endpoint_id = self._verification.endpoint_id(path_key)
        report = to_report(body, headers, header_id=verified.event_id, endpoint_id=endpoint_id, now=now)
        attempt = scope["state"][_ATTEMPT] = Attempt(report)
        self._health.note_verified(endpoint_id, now)
        try:
            self._submit(report, AnswerInLane(exchange, attempt))
        except ServiceError as error:
            attempt.error = error
            return False
        return True

    def _refuse(self, scope: Scope, body: bytes, path_key: str | None, refused: Refused, exchange: Exchange) -> bool:
        """Refuse at once what is a delivery but for its signature; False, and nothing done, for anything else."""
        now, headers = self._clock.now(), scope["headers"]
        if not is_delivery(headers, body) or self._probed(headers, body, now) is not None:
            return False
        error = SignatureRefused(refused, now=now)
        scope["state"][_ATTEMPT] = Attempt(error=error)
        self._note(scope, path_key, body, refused.reason)
        respond_unauthorized(scope, exchange, error)
        return True

    async def _take(self, scope: Scope, receive: Receive) -> bytes:
        """The body of the answer, which is 200."""
        if scope["method"] != "POST":
            message = "Deliveries are sent with POST."
            raise ServiceError(message, status=405, code="method_not_allowed")
        path_key = _path_key(scope)
        try:
            body = await read_body(scope, receive, most_bytes=self._most_bytes)
        except BodyTooLarge as error:
            self._note(scope, path_key, b"", "too_large")
            message = f"At most {self._most_bytes} bytes are taken."
            raise ServiceError(message, status=413, code="payload_too_large") from error
        verified = await self._verify(scope, path_key, body)
        if isinstance(verified, bytes):
            return verified
        now = self._clock.now()
        endpoint_id = self._verification.endpoint_id(path_key)
        self._health.note_verified(endpoint_id, now)
        headers = scope["headers"]
        report = to_report(body, headers, header_id=verified.event_id, endpoint_id=endpoint_id, now=now)
        await self._keep(report)
        return b""

    async def _go_on(self, attempt: Attempt) -> bytes:
        """What is left to do of a delivery that the lane has verified."""
        if attempt.report is not None and not attempt.is_recorded:
            await (self._keep(attempt.report) if attempt.error is None else self._keep_unreadable(attempt.report))
        return b""

    async def _keep(self, report: Report) -> None:
        try:
            await self._record(report)
        except RecordFailed:
            await self._keep_unreadable(report)

    async def _keep_unreadable(self, report: Report) -> None:
        """What it claims can't be recorded; that it came, and its bytes, can, in what is left of its time."""
        rest = PATIENCE - (self._clock.now() - report.reported_at).total_seconds()
        try:
            async with asyncio.timeout(rest):
                await self._record(as_unreadable(report))
        except TimeoutError:
            raise DatabaseUnavailable from None

    async def _verify(self, scope: Scope, path_key: str | None, body: bytes) -> Verified | bytes:
        """Verified; or the answer to what is no delivery but a probe of our own."""
        probed = self._probed(scope["headers"], body, self._clock.now())
        if probed is not None:
            return probed
        result = await self._verification.verify(scope["headers"], body, path_key)
        if isinstance(result, Verified):
            return result
        if result.reason is Reason.NO_SECRET and not self._verification.is_read:
            raise DatabaseUnavailable  # the secret may well be there: this is no reason to refuse for good
        if not is_delivery(scope["headers"], body):
            self._note(scope, path_key, body, "not_a_delivery")
            message = "A delivery is a signed JSON body without any Content-Encoding."
            raise ServiceError(message, status=400, code="not_a_delivery")
        self._note(scope, path_key, body, result.reason)
        raise SignatureRefused(result, now=self._clock.now())

    def _note(self, scope: Scope, path_key: str | None, body: bytes, reason: str) -> None:
        now, endpoint_id = self._clock.now(), self._verification.endpoint_id(path_key)
        self._health.note_refused(endpoint_id, now)
        client = scope.get("client")
        self._refusals.note(
            Refusal(
                reason=reason,
                rejected_at=now,
                endpoint_id=endpoint_id,
                body=body,
                header_names=[name for name, _ in scope["headers"]],
                remote_address=client[0] if client else None,
            )
        )


def _path_key(scope: Scope) -> str | None:
    return scope["path"][len(ROUTE) :].strip("/") or None
