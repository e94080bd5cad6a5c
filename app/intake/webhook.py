"""POST /rivya/webhook and /rivya/webhook/{key}: a delivery is answered 2xx only once it is committed."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from time import perf_counter
from typing import Protocol

import structlog
from starlette.types import Receive, Scope, Send

from app.core.bodies import DELIVERIES, BodyIncomplete, read_body
from app.core.clock import Clock
from app.core.errors import BodyTooLarge, DatabaseUnavailable, ServiceError
from app.core.middleware import HTTP_REQUESTS, REQUEST_SECONDS, STARTED, count, ensure_request_id
from app.core.proxies import client_address
from app.core.records import json_body
from app.core.urls import Network
from app.intake.rejections import MALFORMED, Rejection, Rejections
from app.ledger.decide import Recorded
from app.ledger.models import Delivery, Outcome, Report, Source
from app.ledger.recorder import RecordFailed
from app.ledger.serializers import format_time
from app.ledger.write_queue import PATIENCE
from app.rivya.payloads import DeliveryBody, read_delivery
from app.rivya.signature import TOLERANCE, RawHeaders, Reason, Refused, Verified

log = structlog.stdlib.get_logger(__name__)


class SignatureRefused(ServiceError):
    """401: no valid signature of Rivya's."""

    status = 401

    def __init__(self, refused: Refused, *, now: datetime) -> None:
        super().__init__(_MESSAGES[refused.reason], code=refused.reason)
        self.details: dict[str, object] = {}
        """Members beside code and message: the times, set only if the signature is right and its timestamp is not."""
        offset = refused.offset_seconds
        if refused.reason in (Reason.STALE_TIMESTAMP, Reason.FUTURE_TIMESTAMP) and offset is not None:
            self.details = {
                "signedAt": _written(now, offset),
                "receivedAt": _written(now, 0),
                "offsetSeconds": round(offset),
                "toleranceSeconds": round(TOLERANCE.total_seconds()),
            }


def _written(now: datetime, offset: float) -> str | None:
    """The time in Rivya's format; None if it is outside of the calendar, since a sender may send any timestamp."""
    try:
        return format_time(now + timedelta(seconds=offset))
    except OverflowError:
        return None


_MESSAGES = {
    Reason.MISSING_SIGNATURE: "The signature's headers are missing.",
    Reason.MALFORMED_SIGNATURE: "The signature's headers can't be read.",
    Reason.STALE_TIMESTAMP: "The signature is right, but older than 300 seconds.",
    Reason.FUTURE_TIMESTAMP: "The signature is right, but more than 300 seconds ahead.",
    Reason.SIGNATURE_MISMATCH: "The signature was not made with a secret of this endpoint over these bytes.",
    Reason.NO_SECRET: "No signing secret is known yet, so nothing can be verified.",
}


ROUTE = "/rivya/webhook"
"""The label in metrics; it never contains the path key."""

_RECORDED = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
_NOTHING_MORE = {"type": "http.response.body", "body": b""}
_COUNT_OK, _SECONDS = HTTP_REQUESTS.labels(ROUTE, "POST", 200), REQUEST_SECONDS.labels(ROUTE)


def count_recorded(scope: Scope) -> None:
    """Count one request answered 200."""
    _COUNT_OK.inc()
    _SECONDS.observe(perf_counter() - scope["state"][STARTED])


async def send_ok(scope: Scope, send: Send, body: bytes = b"") -> None:
    """200 for a delivery that is recorded now or was before; no request id, since Rivya needs none.

    `body` is the response to a probe of our own.
    """
    count_recorded(scope)
    if body:
        await _send(send, 200, body, {})
        return
    await send(_RECORDED)
    await send(_NOTHING_MORE)


@dataclass(slots=True)
class Attempt:
    """What has been done with a delivery before `Intake` is called, in the scope's `state`: it is not done again."""

    report: Report | None = None
    """Verified, and counted as verified."""
    error: ServiceError | None = None
    """Why it was rejected or not recorded; recording it again is then useless, unless it is a `RecordFailed`."""
    is_recorded: bool = False


async def send_error(scope: Scope, send: Send, error: ServiceError) -> None:
    """Send the error in Rivya's format, with `Retry-After` if a retry makes sense."""
    body, headers = render_error(scope, error)
    count(scope, ROUTE, scope["method"], error.status)
    await _send(send, error.status, body, headers)


def render_error(scope: Scope, error: ServiceError) -> tuple[bytes, Mapping[bytes, bytes]]:
    """The body of the error response, and its headers except content type and length."""
    extra = error.details if isinstance(error, SignatureRefused) else {}
    identity = ensure_request_id(scope)
    detail = {"code": error.code, "message": error.message, "requestId": identity, **extra}
    headers = {b"x-request-id": identity.encode()}
    if error.retry_after is not None:
        headers[b"retry-after"] = str(math.ceil(error.retry_after)).encode()
    if error.status == 405:
        headers[b"allow"] = b"POST"
    return json_body({"error": detail}), headers


async def _send(send: Send, status: int, body: bytes, headers: Mapping[bytes, bytes]) -> None:
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers.items()]})
    await send({"type": "http.response.body", "body": body})


_ATTEMPT = "delivery_attempt"


class Verification(Protocol):
    """Verifies deliveries with the current secrets and the signature scheme."""

    @property
    def is_read(self) -> bool:
        """The stored secrets have been read; no secret is known before."""

    def endpoint_id(self, path_key: str | None) -> str | None:
        """The id of our endpoint that has this path key."""

    def may_be_test(self, endpoint_id: str | None, now: datetime) -> bool:
        """A test delivery was requested, and this one may be it."""

    def verify_now(
        self, headers: RawHeaders, body: bytes, path_key: str | None, now: datetime
    ) -> Verified | Refused | None:
        """The result of `verify`, if it needs neither waiting nor I/O; else None."""

    async def verify(self, headers: RawHeaders, body: bytes, path_key: str | None) -> Verified | Refused:
        """Whether Rivya signed it. Raises `ServiceError` if that can't be decided now."""


class Health(Protocol):
    """Counts verified and refused deliveries of each endpoint."""

    def record_verified(self, endpoint_id: str | None, at: datetime) -> None:
        """Record a verified delivery."""

    def record_refused(self, endpoint_id: str | None, at: datetime) -> None:
        """Record a delivery whose signature was refused."""

    def record_malformed(self, endpoint_id: str | None, defect: str, at: datetime) -> None:
        """Record a delivery that was refused for its size or form."""


class Intake:
    """An ASGI application for everything under /rivya/webhook."""

    path = ROUTE

    def __init__(
        self,
        verification: Verification,
        health: Health,
        rejections: Rejections,
        record: Callable[[Report], Awaitable[Recorded]],
        *,
        clock: Clock,
        most_bytes: int,
        probed: Callable[[RawHeaders, bytes, datetime], bytes | None],
        trusted_proxies: Sequence[Network] = (),
    ) -> None:
        self._verification = verification
        self._health = health
        self.kept_for: timedelta | None = None
        """How long generations are kept once they are settled; None: for ever."""
        self._rejections = rejections
        self._record = record
        self._clock = clock
        self._most_bytes = most_bytes
        self._probed = probed
        """The response body for a probe of our own; None for every other request."""
        self._trusted_proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and count it. No content of the request makes this raise."""
        attempt: Attempt | None = scope.get("state", {}).get(_ATTEMPT)
        if attempt is not None and attempt.error is not None and not isinstance(attempt.error, RecordFailed):
            await send_error(scope, send, attempt.error)
            return
        try:
            answer = await (self._receive(scope, receive) if attempt is None else self._resume(attempt))
        except BodyIncomplete:
            await send_error(scope, send, ServiceError("The body did not come.", status=408, code="body_incomplete"))
        except ServiceError as error:
            await send_error(scope, send, error)
        except Exception:  # the web boundary: the sender retries after any failure
            log.exception("delivery.failed", request_id=ensure_request_id(scope))
            await send_error(scope, send, ServiceError("Not recorded.", status=503, code="not_recorded", retry_after=5))
        else:
            await send_ok(scope, send, answer)

    def verify_now(self, scope: Scope, body: bytes) -> Attempt | None:
        """The delivery, verified or rejected without waiting; None, and nothing done, for every other request.

        The result is also stored in the scope's `state`, so that `__call__` does not repeat the work.
        """
        if scope["method"] != "POST" or len(body) > self._most_bytes:
            return None
        now, headers, path_key = self._clock.now(), scope["headers"], _path_key(scope)
        verified = self._verification.verify_now(headers, body, path_key, now)
        if not isinstance(verified, Verified):
            return None if verified is None else self._reject_now(scope, body, path_key, verified)
        attempt = scope["state"][_ATTEMPT] = Attempt(self._report(scope, body, path_key, verified, now))
        return attempt

    def _reject_now(self, scope: Scope, body: bytes, path_key: str | None, refused: Refused) -> Attempt | None:
        """Reject a delivery whose signature is not valid; None, and nothing done, for every other request."""
        now, headers = self._clock.now(), scope["headers"]
        if not is_delivery(headers, body) or self._probed(headers, body, now) is not None:
            return None
        attempt = scope["state"][_ATTEMPT] = Attempt(error=SignatureRefused(refused, now=now))
        self._record_rejection(scope, path_key, body, refused.reason)
        return attempt

    async def _receive(self, scope: Scope, receive: Receive) -> bytes:
        """The body of the 200 response."""
        if scope["method"] != "POST":
            message = "Deliveries are sent with POST."
            raise ServiceError(message, status=405, code="method_not_allowed")
        path_key = _path_key(scope)
        try:
            body = await read_body(scope, receive, most_bytes=self._most_bytes, memory=DELIVERIES)
        except BodyTooLarge:
            self._record_rejection(scope, path_key, b"", "too_large")
            raise
        verified = await self._verify(scope, path_key, body)
        if isinstance(verified, bytes):
            return verified
        await self._store(self._report(scope, body, path_key, verified, self._clock.now()))
        return b""

    def _report(self, scope: Scope, body: bytes, path_key: str | None, verified: Verified, now: datetime) -> Report:
        endpoint_id = self._verification.endpoint_id(path_key)
        self._health.record_verified(endpoint_id, now)
        # Without a signed time a delivery can be sent again at any time, also after its event and generation are gone.
        is_timeless = verified.offset_seconds is None
        return parse_delivery(
            body,
            scope["headers"],
            header_id=verified.event_id,
            endpoint_id=endpoint_id,
            now=now,
            may_be_test=self._verification.may_be_test(endpoint_id, now),
            forgotten_before=now - self.kept_for if is_timeless and self.kept_for is not None else None,
        )

    async def _resume(self, attempt: Attempt) -> bytes:
        """Finish a delivery that `verify_now` has verified."""
        if attempt.report is not None and not attempt.is_recorded:
            await (self._store(attempt.report) if attempt.error is None else self._store_unreadable(attempt.report))
        return b""

    async def _store(self, report: Report) -> None:
        try:
            await self._record(report)
        except RecordFailed:
            await self._store_unreadable(report)

    async def _store_unreadable(self, report: Report) -> None:
        """Record the delivery as unreadable, because its claim can't be recorded, within the rest of its `PATIENCE`."""
        rest = PATIENCE - (self._clock.now() - report.reported_at).total_seconds()
        try:
            async with asyncio.timeout(rest):
                await self._record(as_unreadable(report))
        except TimeoutError:
            raise DatabaseUnavailable from None

    async def _verify(self, scope: Scope, path_key: str | None, body: bytes) -> Verified | bytes:
        """The verified delivery, or the response body if the request is a probe of our own."""
        probed = self._probed(scope["headers"], body, self._clock.now())
        if probed is not None:
            return probed
        result = await self._verification.verify(scope["headers"], body, path_key)
        if isinstance(result, Verified):
            return result
        if result.reason is Reason.NO_SECRET and not self._verification.is_read:
            raise DatabaseUnavailable  # the secret may be stored and not yet read: the sender has to retry
        if not is_delivery(scope["headers"], body):
            self._record_rejection(scope, path_key, body, "not_a_delivery")
            message = "A delivery is a signed JSON body without any Content-Encoding."
            raise ServiceError(message, status=400, code="not_a_delivery")
        self._record_rejection(scope, path_key, body, result.reason)
        raise SignatureRefused(result, now=self._clock.now())

    def _record_rejection(self, scope: Scope, path_key: str | None, body: bytes, reason: str) -> None:
        now, endpoint_id = self._clock.now(), self._verification.endpoint_id(path_key)
        if reason in MALFORMED:
            self._health.record_malformed(endpoint_id, MALFORMED[reason], now)
        else:
            self._health.record_refused(endpoint_id, now)
        self._rejections.record(
            Rejection(
                reason=reason,
                rejected_at=now,
                endpoint_id=endpoint_id,
                body=body,
                header_names=[name for name, _ in scope["headers"]],
                remote_address=client_address(scope, self._trusted_proxies),
            )
        )


def _path_key(scope: Scope) -> str | None:
    return scope["path"][len(ROUTE) :].strip("/") or None


_STORED_HEADERS = frozenset({b"content-type", b"user-agent"})
_FEW = 64
_ENDINGS = (b"signature", b"signature-256", b"timestamp", b"-id")


def parse_delivery(
    body: bytes,
    headers: RawHeaders,
    *,
    header_id: str | None,
    endpoint_id: str | None,
    now: datetime,
    may_be_test: bool = False,
    forgotten_before: datetime | None = None,
) -> Report:
    """The report of a delivery, with its bytes as evidence. Never raises: an unreadable body is recorded as such.

    `may_be_test`: if no generation with its id is known, it is the test delivery that was requested.
    `forgotten_before`: what was settled before may have been pruned, so an older claim makes no generation anew.
    """
    read = read_delivery(body, header_id=header_id)
    is_claim = read.kind == "generation" and read.generation is not None
    claimed_at = None if read.generation is None else read.generation.updated_at or read.generation.created_at
    is_old = claimed_at is not None and forgotten_before is not None and claimed_at < forgotten_before
    if_unknown = Outcome.TEST if may_be_test else Outcome.STALE if is_old else None
    delivery = Delivery(
        event_id=read.event_id,
        event_type=read.event_type,
        endpoint_id=endpoint_id,
        received_at=now,
        body=body,
        headers=stored_headers(headers),
        stored_outcome=if_unknown if is_claim else _outcome_of(read),
        mentioned_id=read.generation.id if read.generation is not None else None,
    )
    claim = read.generation if is_claim else None
    return Report(source=Source.WEBHOOK, reported_at=now, claim=claim, delivery=delivery)


def is_delivery(headers: RawHeaders, body: bytes) -> bool:
    """Whether the request has the form of a delivery, its signature aside: a body, without a Content-Encoding."""
    encodings = [value.strip().lower() for name, value in headers if name == b"content-encoding"]
    return bool(body) and all(value in (b"", b"identity") for value in encodings)


def as_unreadable(report: Report) -> Report:
    """The same delivery without its claim, as evidence only."""
    if report.delivery is None:
        return report
    return replace(
        report, claim=None, delivery=replace(report.delivery, stored_outcome=Outcome.UNREADABLE, mentioned_id=None)
    )


def stored_headers(headers: RawHeaders) -> dict[str, str]:
    """The headers stored as evidence: content type, user agent, and those of the signature."""
    return {
        stored_name: value.decode("latin-1")
        for name, value in headers
        if (stored_name := _stored_name(name)) is not None
    }


@lru_cache(_FEW)  # Rivya sends the same few names; the bound limits what other senders can store here
def _stored_name(name: bytes) -> str | None:
    return name.decode("latin-1") if name in _STORED_HEADERS or name.endswith(_ENDINGS) else None


def _outcome_of(read: DeliveryBody) -> Outcome:
    return Outcome.UNREADABLE if read.kind == "generation" else Outcome(read.kind)
