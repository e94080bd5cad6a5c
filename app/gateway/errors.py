"""What can be wrong with the body of a relayed call before Rivya has seen it."""

from typing import Final

from app.core.errors import ServiceError

LONGEST_SILENCE: Final = 60.0
"""Seconds without a byte of a body that was announced."""


class CallerGone(Exception):
    """The connection ended before the body did: there is nobody to answer."""


class BodyStalled(ServiceError):
    """The caller stopped sending in the midst of a body."""

    status = 408
    code = "request_timeout"

    def __init__(self) -> None:
        super().__init__(f"No part of the body came for {LONGEST_SILENCE:g} s.")


class BodyTooLarge(ServiceError):
    """The body is larger than Rivya would take."""

    status = 413
    code = "payload_too_large"
