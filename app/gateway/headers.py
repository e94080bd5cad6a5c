"""Selects the headers that are relayed with a call and with its answer; pure."""

from collections.abc import Iterable
from typing import Final

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# The caller's token, headers that identify the caller, and those that each hop sets itself.
_OURS: Final = frozenset(
    {
        b"authorization",
        b"cookie",
        b"cookie2",
        b"host",
        b"expect",
        b"accept-encoding",
        b"forwarded",
        b"via",
        b"x-real-ip",
        b"x-request-id",
    }
)
_FORWARDED: Final = b"x-forwarded-"
# Headers for our connection to Rivya only. Every answer of ours has an X-Request-Id of its own.
_THEIRS: Final = frozenset({b"set-cookie", b"set-cookie2", b"server", b"alt-svc", b"strict-transport-security"})
_REQUEST_ID: Final = b"x-request-id"
RIVYA_REQUEST_ID: Final = b"x-rivya-request-id"


def onward(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The caller's headers to send to Rivya; names in lower case, as the server gives them."""
    given = list(headers)
    left_out = _HOP_BY_HOP | _OURS | _named_by_connection(given)
    return [(name, value) for name, value in given if name not in left_out and not name.startswith(_FORWARDED)]


def back(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Rivya's headers to send to the caller, names in lower case; its request id is named X-Rivya-Request-Id."""
    given = [(name.lower(), value) for name, value in headers]
    left_out = _HOP_BY_HOP | _THEIRS | _named_by_connection(given)
    return [(RIVYA_REQUEST_ID if name == _REQUEST_ID else name, value) for name, value in given if name not in left_out]


def value_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The first value of a header, None if it is missing."""
    return next((value.decode("latin-1") for given, value in headers if given == name), None)


def declared_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """The number of bytes in `Content-Length`, None if it is missing or no number."""
    text = value_of(headers, b"content-length") or ""
    return int(text[:20]) if text.isascii() and text.isdigit() else None


def _named_by_connection(headers: Headers) -> set[bytes]:
    values = [value for name, value in headers if name == b"connection"]
    return {token.strip().lower() for value in values for token in value.split(b",")}
