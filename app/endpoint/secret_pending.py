"""503: Rivya was asked for a new secret, and its answer is not stored yet; what it signs can't be told until then."""

from app.core.errors import ServiceError


class SecretPending(ServiceError):
    """The delivery is to be sent again."""

    status = 503
    code = "secret_pending"

    def __init__(self) -> None:
        super().__init__("A new signing secret is on its way; send this again.", retry_after=2)
