"""Errors that carry their own HTTP status, code and message; one place in `app.api` renders them."""

from dataclasses import dataclass


class ServiceError(Exception):
    """An answer other than success, in Rivya's error shape; the message is safe to show to a caller."""

    status = 500
    code = "internal_error"

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status if status is not None else self.status
        self.code = code if code is not None else self.code
        self.retry_after = retry_after
        """Seconds after which trying again makes sense, or None where it does not."""


class DatabaseUnavailable(ServiceError):
    """The database can't be reached, is too slow, or refuses to write: nothing was decided, trying again is right."""

    status = 503
    code = "database_unavailable"

    def __init__(self, message: str = "The database can't be reached at the moment.", *, reason: str = "") -> None:
        super().__init__(message, retry_after=5)
        self.reason = reason
        """The driver's name for what is wrong: for the operator, not for callers."""


class Overloaded(ServiceError):
    """More is waiting to be recorded than the database can take in time."""

    status = 503
    code = "overloaded"

    def __init__(self, message: str = "Too much is waiting to be recorded.") -> None:
        super().__init__(message, retry_after=1)


# What a part of the service finds when it looks at itself, as `/readyz` shows it.


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One thing looked at."""

    name: str
    ok: bool
    detail: str
    """What is wrong and what to do about it, or how well it is."""
    is_required: bool
    """The service is not ready while this is not ok."""
