"""The errors of calls to Rivya: a clear refusal, no clear answer, or an unreadable one."""

import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final, TypedDict, Unpack

from app.core.records import json_object
from app.rivya.payloads import readable_text, usable_name


class _Details(TypedDict, total=False):
    message: str | None
    request_id: str | None
    retry_after: float | None


class RivyaError(Exception):
    """A call to Rivya failed. The text never has a body or a secret.

    `message` is Rivya's own, `request_id` its id of the call, `retry_after` the seconds it asks to wait; None if it
    gave none.
    """

    def __init__(self, situation: str = "", **details: Unpack[_Details]) -> None:
        super().__init__(situation)
        self.message = details.get("message")
        self.request_id = details.get("request_id")
        self.retry_after = details.get("retry_after")


class RivyaRefused(RivyaError):
    """Rivya answered with an error of its own: final, unless the class or `code` says otherwise.

    `body` is the unchanged response, for relaying it.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str | None = None,
        *,
        request_id: str | None = None,
        retry_after: float | None = None,
        body: bytes = b"",
    ) -> None:
        situation = f"Rivya answered {status} {code} (request {request_id or 'unnamed'})"
        super().__init__(situation, message=message, request_id=request_id, retry_after=retry_after)
        self.status = status
        self.code = code
        self.body = body


class RivyaUnauthorized(RivyaRefused):
    """401: the key is missing, wrong, revoked or expired. Stop calling, and alert the operator."""


class RivyaForbidden(RivyaRefused):
    """403: the key lacks a scope. Stop that feature and name the scope."""


class RivyaNotFound(RivyaRefused):
    """404: missing, or another account's."""


class RivyaRateLimited(RivyaRefused):
    """429: back off, by `retry_after` seconds where Rivya says so."""


class RequestWithheld(RivyaError):
    """The request was not sent: `before_send` returned False right before its first byte."""


class RivyaUnavailable(RivyaError):
    """No clear answer: a transport error, a time-out, a 5xx, or an answer that isn't Rivya's. Worth trying again.

    `sent` is False only when the request certainly never reached Rivya. Otherwise it may have taken effect.
    `status` and `code` are known when there was an answer.
    """

    def __init__(
        self,
        situation: str,
        *,
        sent: bool,
        status: int | None = None,
        code: str | None = None,
        **details: Unpack[_Details],
    ) -> None:
        super().__init__(situation, **details)
        self.sent = sent
        self.status = status
        self.code = code


class RivyaMalformed(RivyaUnavailable):
    """The answer breaks the rules of HTTP, is encoded or too large; what it says about the request is unknown."""


class RivyaUnreadable(RivyaError):
    """Rivya answered 2xx with a body that can't be read: the request has probably taken effect."""

    def __init__(self, situation: str, *, status: int) -> None:
        super().__init__(situation)
        self.status = status


LONGEST_RETRY_AFTER: Final = 3600.0

_SECONDS: Final = re.compile(r"\d{1,20}(?:\.\d{1,9})?", re.ASCII)
_CLASSES: Final[Mapping[int, type[RivyaRefused]]] = MappingProxyType(
    {401: RivyaUnauthorized, 403: RivyaForbidden, 404: RivyaNotFound, 429: RivyaRateLimited}
)


def read_error(status: int, body: bytes, headers: Mapping[str, str]) -> RivyaError:
    """The typed error for a response that is no 2xx; header names in lower case.

    A 429 counts as Rivya's whatever its body: a rate limit is often enforced in front of the service. Any other
    response that isn't in Rivya's shape, and any 5xx, says nothing about the request itself.
    """
    error = (json_object(body) or {}).get("error")
    error = error if isinstance(error, dict) else {}
    code = usable_name(error.get("code")) or ("rate_limited" if status == 429 else None)
    details: _Details = {
        "message": readable_text(error.get("message")),
        "request_id": usable_name(error.get("requestId")) or usable_name(headers.get("x-request-id")),
        "retry_after": read_retry_after(headers),
    }
    if code is None or not 400 <= status < 500:
        situation = f"Rivya answered {status} {code or 'without an error of its own'}"
        return RivyaUnavailable(situation, sent=True, status=status, code=code, **details)
    return _CLASSES.get(status, RivyaRefused)(status, code, body=body, **details)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds to wait that `Retry-After` asks for, an hour at most, or None.

    A date is counted from the `Date` of the same response, so that our clock does not matter.
    """
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), LONGEST_RETRY_AFTER)
    until, answered = _http_date(value), read_date(headers)
    if until is None or answered is None:
        return None
    return min(max((until - answered).total_seconds(), 0.0), LONGEST_RETRY_AFTER)


def read_date(headers: Mapping[str, str]) -> datetime | None:
    """The time in the `Date` header, by the sender's clock, or None."""
    return _http_date(headers.get("date", ""))


def _http_date(text: str) -> datetime | None:
    try:
        time = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return time if time.tzinfo is not None else None
