"""The fast path of POST /rivya/webhook: a delivery that is verified and queued, or rejected, without waiting."""

from collections.abc import Callable

import structlog
from starlette.types import Scope

from app.core.errors import ServiceError
from app.core.middleware import count
from app.fastpath.application import Exchange
from app.intake.webhook import ROUTE, Attempt, Intake, count_recorded, render_error
from app.ledger.decide import Recorded
from app.ledger.models import Report
from app.ledger.write_queue import Completion

log = structlog.stdlib.get_logger(__name__)

_UNAUTHORIZED = b"401 Unauthorized"


class FastDelivery:
    """Verifies a delivery and queues its report; other requests go to `Intake`, which repeats no work done here."""

    def __init__(self, intake: Intake, enqueue: Callable[[Report, Completion], None]) -> None:
        self._intake = intake
        self._enqueue = enqueue

    def __call__(self, scope: Scope, body: bytes, exchange: Exchange) -> bool:
        """`app.fastpath.application.FastHandler`."""
        attempt = self._intake.verify_now(scope, body)
        if attempt is None:
            return False
        if attempt.error is not None:
            respond_unauthorized(scope, exchange, attempt.error)
        elif attempt.report is not None:
            try:
                self._enqueue(attempt.report, FastDeliveryReply(scope, exchange, attempt))
            except ServiceError as error:
                attempt.error = error
                return False
        return True


class FastDeliveryReply:
    """Answers 200 once the delivery is committed, and falls back to `Intake` if it could not be."""

    __slots__ = ("_attempt", "_exchange", "_is_answered", "_scope")

    def __init__(self, scope: Scope, exchange: Exchange, attempt: Attempt) -> None:
        self._scope = scope
        self._exchange = exchange
        self._attempt = attempt
        self._is_answered = False

    def done(self) -> bool:
        """The request is answered."""
        return self._is_answered

    def set_result(self, recorded: Recorded, /) -> None:  # noqa: ARG002 - every outcome has the same response
        """Answer 200: the delivery is committed."""
        self._is_answered = self._attempt.is_recorded = True
        try:
            self._exchange.respond()
            count_recorded(self._scope)
        except Exception:
            log.exception("fast_path.failed")
            self._exchange.fall_back()

    def set_exception(self, error: ServiceError, /) -> None:
        """Let `Intake` answer: the delivery is not committed."""
        if not self._is_answered:
            self._is_answered = True
            self._attempt.error = error
            self._exchange.fall_back()


def respond_unauthorized(scope: Scope, exchange: Exchange, error: ServiceError) -> None:
    """401, as `Intake` answers it."""
    body, headers = render_error(scope, error)
    lines = [b"content-type: application/json", *(b"%b: %b" % header for header in headers.items()), b""]
    exchange.respond(b"\r\n".join(lines), body, status=_UNAUTHORIZED)
    count(scope, ROUTE, scope["method"], error.status)
