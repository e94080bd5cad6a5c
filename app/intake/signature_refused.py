"""401: a delivery that is not proved to come from Rivya, and what its sender is told of that."""

from datetime import datetime, timedelta

from app.core.errors import ServiceError
from app.ledger.serializers import moment
from app.rivya.signature import TOLERANCE, Reason, Refused


class SignatureRefused(ServiceError):
    """401: not proved to come from Rivya."""

    status = 401

    def __init__(self, refused: Refused, *, now: datetime) -> None:
        super().__init__(_MESSAGES[refused.reason], code=refused.reason)
        self.told: dict[str, object] = {}
        """Beside code and message: times where they are the reason, and then the signature was right."""
        offset = refused.offset_seconds
        if refused.reason in (Reason.STALE_TIMESTAMP, Reason.FUTURE_TIMESTAMP) and offset is not None:
            self.told = {
                "signedAt": _written(now, offset),
                "receivedAt": _written(now, 0),
                "offsetSeconds": round(offset),
                "toleranceSeconds": round(TOLERANCE.total_seconds()),
            }


def _written(now: datetime, offset: float) -> str | None:
    """A moment as Rivya writes it; None for one beyond the calendar, which a sender may claim."""
    try:
        return moment(now + timedelta(seconds=offset))
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
