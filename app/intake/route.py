"""POST /rivya/webhook and /rivya/webhook/{key}: a delivery is answered 2xx only once it is committed."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Protocol

import structlog
from starlette.types import Receive, Scope, Send

from app.core.clock import Clock
from app.core.errors import DatabaseUnavailable, ServiceError
from app.core.express import Respond
from app.core.requests import identified
from app.intake.answers import ROUTE, answer_when_recorded, send_error, send_recorded
from app.intake.reading import BodyIncomplete, BodyTooLarge, read_body
from app.intake.refusals import Refusal, Refusals
from app.intake.translate import as_unreadable, is_delivery, to_report
from app.ledger.batch import RecordFailed
from app.ledger.plan import Recorded
from app.ledger.report import Report
from app.rivya.signature import Reason, Refused, Verified, Verifier

_WORTH_A_LOOK = (Reason.SIGNATURE_MISMATCH, Reason.NO_SECRET)

log = structlog.stdlib.get_logger(__name__)


class Keyring(Protocol):
    """The secrets that are current."""

    @property
    def is_read(self) -> bool:
        """What is stored has been read; before that, no secret is known."""

    @property
    def verifier(self) -> Verifier:
        """Verifies against every current secret."""

    async def refresh(self) -> bool:
        """Look for newer secrets; True if there were any."""

    def endpoint_id(self, path_key: str | None) -> str | None:
        """Which endpoint of ours has this path key."""


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
        keyring: Keyring,
        health: Health,
        refusals: Refusals,
        record: Callable[[Report], Awaitable[Recorded]],
        *,
        submit: Callable[[Report], "asyncio.Future[Recorded]"] | None = None,
        clock: Clock,
        most_bytes: int,
    ) -> None:
        self._keyring = keyring
        self._health = health
        self._refusals = refusals
        self._record = record
        self._submit = submit
        self._clock = clock
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it; no bytes in it make this raise."""
        try:
            await self._take(scope, receive)
        except BodyIncomplete:
            await send_error(scope, send, ServiceError("The body did not come.", status=408, code="body_incomplete"))
        except SignatureRefused as error:
            await send_error(scope, send, error, error.told)
        except ServiceError as error:
            await send_error(scope, send, error)
        except Exception:  # the web boundary: whatever it was, the sender is to come again
            log.exception("delivery.failed", request_id=identified(scope))
            await send_error(scope, send, ServiceError("Not recorded.", status=503, code="not_recorded", retry_after=5))
        else:
            await send_recorded(send)

    def lane(self, scope: Scope, body: bytes, respond: Respond, otherwise: Callable[[], None]) -> bool:
        """A POST that is verified at once and for whose report there is room; `app.core.express.Lane`."""
        if scope["method"] != "POST" or len(body) > self._most_bytes or self._submit is None:
            return False
        now, headers = self._clock.now(), scope["headers"]
        verified = self._keyring.verifier.verify(headers, body, now)
        if not isinstance(verified, Verified):
            return False
        endpoint_id = self._keyring.endpoint_id(_path_key(scope))
        self._health.note_verified(endpoint_id, now)
        report = to_report(body, headers, header_id=verified.event_id, endpoint_id=endpoint_id, now=now)
        try:
            recording = self._submit(report)
        except ServiceError:
            return False
        recording.add_done_callback(partial(answer_when_recorded, respond, otherwise))
        return True

    async def _take(self, scope: Scope, receive: Receive) -> None:
        if scope["method"] != "POST":
            message = "Deliveries are sent with POST."
            raise ServiceError(message, status=405, code="method_not_allowed")
        endpoint_id = self._keyring.endpoint_id(_path_key(scope))
        try:
            body = await read_body(scope, receive, most_bytes=self._most_bytes)
        except BodyTooLarge as error:
            self._note(scope, endpoint_id, b"", "too_large")
            message = f"At most {self._most_bytes} bytes are taken."
            raise ServiceError(message, status=413, code="payload_too_large") from error
        verified = await self._verify(scope, endpoint_id, body)
        now = self._clock.now()
        self._health.note_verified(endpoint_id, now)
        headers = scope["headers"]
        report = to_report(body, headers, header_id=verified.event_id, endpoint_id=endpoint_id, now=now)
        await self._keep(report)

    async def _keep(self, report: Report) -> None:
        try:
            await self._record(report)
        except RecordFailed:
            # What it claims can't be recorded; that it came, and its bytes, can.
            await self._record(as_unreadable(report))

    async def _verify(self, scope: Scope, endpoint_id: str | None, body: bytes) -> Verified:
        headers = scope["headers"]
        result = self._keyring.verifier.verify(headers, body, self._clock.now())
        if isinstance(result, Refused) and result.reason in _WORTH_A_LOOK and await self._keyring.refresh():
            # Another replica may have registered or rotated since we looked.
            result = self._keyring.verifier.verify(headers, body, self._clock.now())
        if isinstance(result, Verified):
            return result
        if result.reason is Reason.NO_SECRET and not self._keyring.is_read:
            raise DatabaseUnavailable  # the secret may well be there: this is no reason to refuse for good
        if not is_delivery(scope["headers"], body):
            self._note(scope, endpoint_id, body, "not_a_delivery")
            message = "A delivery is a signed JSON body without any Content-Encoding."
            raise ServiceError(message, status=400, code="not_a_delivery")
        self._note(scope, endpoint_id, body, result.reason)
        raise SignatureRefused(result)

    def _note(self, scope: Scope, endpoint_id: str | None, body: bytes, reason: str) -> None:
        now = self._clock.now()
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


class SignatureRefused(ServiceError):
    """401: not proved to come from Rivya."""

    status = 401

    def __init__(self, refused: Refused) -> None:
        super().__init__(_MESSAGES[refused.reason], code=refused.reason)
        offset = refused.offset_seconds
        timed = refused.reason in (Reason.STALE_TIMESTAMP, Reason.FUTURE_TIMESTAMP) and offset is not None
        self.told: dict[str, object] = {"offsetSeconds": round(offset or 0)} if timed else {}


_MESSAGES = {
    Reason.MISSING_SIGNATURE: "The signature's headers are missing.",
    Reason.MALFORMED_SIGNATURE: "The signature's headers can't be read.",
    Reason.STALE_TIMESTAMP: "The signature is right, but older than 300 seconds.",
    Reason.FUTURE_TIMESTAMP: "The signature is right, but more than 300 seconds ahead.",
    Reason.SIGNATURE_MISMATCH: "The signature was not made with a secret of this endpoint over these bytes.",
    Reason.NO_SECRET: "No signing secret is known yet, so nothing can be verified.",
}
