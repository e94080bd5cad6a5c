"""Selects the headers that are relayed with a call and with its answer; pure."""

from collections.abc import Iterable
from typing import Final

Headers = list[tuple[bytes, bytes]]

_TO_RIVYA: Final = frozenset(
    {
        b"accept",
        b"accept-language",
        b"content-type",
        b"content-length",
        b"idempotency-key",
        b"last-event-id",
        b"user-agent",
        b"x-request-id",
        b"traceparent",
        b"tracestate",
    }
)
_TO_CALLER: Final = frozenset(
    {
        b"content-type",
        b"content-length",
        b"content-disposition",
        b"retry-after",
        b"age",
        b"etag",
        b"last-modified",
        b"x-request-id",
    }
)
_RATE_LIMITS: Final = (b"ratelimit", b"x-ratelimit", b"x-rate-limit")
_WITHOUT_BODY: Final = (204, 304)
# Every answer of ours has an X-Request-Id of its own.
_REQUEST_ID: Final = b"x-request-id"
RIVYA_REQUEST_ID: Final = b"x-rivya-request-id"


def request_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The caller's headers to send to Rivya: those on the list of what Rivya may need; names in lower case."""
    given = list(headers)
    left_out = _named_by_connection(given)
    return [(name, value) for name, value in given if name in _TO_RIVYA and name not in left_out]


def response_headers(headers: Iterable[tuple[bytes, bytes]], *, status: int, length: int | None = None) -> Headers:
    """Rivya's headers to send to the caller: those on the list of what it may need, names in lower case.

    Rivya's request id is named X-Rivya-Request-Id. `length` is the number of bytes of the body, None if not known yet.
    """
    given = [(name.lower(), value) for name, value in headers]
    left_out = _named_by_connection(given)
    if length is not None or status in _WITHOUT_BODY:
        left_out.add(b"content-length")
    selected = [
        (RIVYA_REQUEST_ID if name == _REQUEST_ID else name, value)
        for name, value in given
        if (name in _TO_CALLER or name.startswith(_RATE_LIMITS)) and name not in left_out
    ]
    if length is None or status in _WITHOUT_BODY:
        return selected
    return [*selected, (b"content-length", str(length).encode())]


def value_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The first value of a header, None if it is missing."""
    return next((value.decode("latin-1") for given, value in headers if given == name), None)


def _named_by_connection(headers: Headers) -> set[bytes]:
    values = [value for name, value in headers if name == b"connection"]
    return {token.strip().lower() for value in values for token in value.split(b",")}
