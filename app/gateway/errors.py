"""The errors of a relayed call that the receiver itself answers."""

from typing import Final

from app.core.errors import ServiceError

LONGEST_SILENCE: Final = 60.0
"""Seconds that may pass between two parts of a request body."""


class CallerGone(Exception):
    """The caller disconnected before the end of its body, so nobody is left to answer."""


class BodyStalled(ServiceError):
    """The caller stopped sending before the end of its body."""

    status = 408
    code = "request_timeout"

    def __init__(self) -> None:
        super().__init__(f"No part of the body came for {LONGEST_SILENCE:g} s.")


class BodyTooLarge(ServiceError):
    """The body is larger than Rivya, or the receiver for a chat turn, accepts."""

    status = 413
    code = "payload_too_large"


class AnswerUnusable(ServiceError):
    """Rivya's answer broke off, is too large or encoded, breaks the rules of HTTP, or is about something else."""

    status = 502
    code = "rivya_unreadable"
