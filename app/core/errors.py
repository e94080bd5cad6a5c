"""Errors with their HTTP status, code and message, which `app.api` renders; and the result of a health check."""

import ssl
from dataclasses import dataclass


class ServiceError(Exception):
    """An error response in Rivya's shape; the message is safe to show to a caller."""

    status = 500
    code = "internal_error"
    message = ""
    retry_after: float | None = None
    """Seconds after which a retry makes sense, or None where it does not."""

    def __init__(
        self, message: str = "", *, status: int | None = None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message or self.message)
        self.message = message or self.message
        self.status = status or self.status
        self.code = code or self.code
        self.retry_after = self.retry_after if retry_after is None else retry_after


class RequestInvalid(ServiceError):
    """400: a parameter, a header or the body is not valid; the message names it, and what is valid."""

    status = 400
    code = "validation_failed"


class NotFound(ServiceError):
    """404: nothing has this id."""

    status = 404
    code = "not_found"


class BodyTooLarge(ServiceError):
    """413: the body is larger than the receiver, or Rivya, accepts."""

    status = 413
    code = "payload_too_large"

    @classmethod
    def of(cls, most_bytes: int) -> "BodyTooLarge":
        """The error for a body of more than `most_bytes`."""
        return cls(f"The body is larger than {most_bytes} bytes.")


class DatabaseUnavailable(ServiceError):
    """503: the database can't be reached, is too slow, or refuses to write. Nothing was decided: try again."""

    status = 503
    code = "database_unavailable"

    def __init__(self, message: str = "The database can't be reached at the moment.", *, reason: str = "") -> None:
        super().__init__(message, retry_after=5)
        self.reason = reason
        """The driver's name for the error: for the operator, not for callers."""


class Overloaded(ServiceError):
    """503: more is waiting to be recorded than the database can write in time."""

    status = 503
    code = "overloaded"
    message = "Too much is waiting to be recorded."
    retry_after = 1


SEE_LOG = "see the log, or ask with a token of the role admin"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """The result of one check, as `/readyz` shows it."""

    name: str
    ok: bool
    detail: str
    """The problem and its remedy, or the present state."""
    is_required: bool
    """The service is not ready while this is not ok."""
    remedy: str = SEE_LOG
    """The remedy while it is not ok, as constant text without names or figures: strangers get this, not `detail`."""


def tls_cause(error: BaseException | None) -> ssl.SSLError | None:
    """The error of TLS that led to this one, None if there is none."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error
