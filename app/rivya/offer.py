"""Read what the headers of a delivery offer as proof: the signatures, and the bytes signed before the body."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final

from app.rivya.keys import decode_mac
from app.rivya.schemes import Encoding, Scheme
from app.rivya.timestamps import read_unix_seconds

RawHeaders = Sequence[tuple[bytes, bytes]]
"""Headers as ASGI gives them: names in lower case."""

MOST_SIGNATURES: Final = 16
LONGEST_HEADER: Final = 4096
_TOKEN: Final = re.compile(rb"[^\s,;]+")
_LABEL: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_-]{0,19}[=:]")  # sha256= v1= sig= …; a `v1,` is cut off by the comma


class Reason(StrEnum):
    """Why a delivery was refused."""

    MISSING_SIGNATURE = "missing_signature"
    MALFORMED_SIGNATURE = "malformed_signature"
    STALE_TIMESTAMP = "stale_timestamp"
    FUTURE_TIMESTAMP = "future_timestamp"
    SIGNATURE_MISMATCH = "signature_mismatch"
    NO_SECRET = "no_secret"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Offer:
    """What a sender claims: MACs over `prefix` and the body, and when it says it signed (Unix seconds)."""

    prefix: bytes
    macs: tuple[bytes, ...]
    sent_at: float | None
    event_id: str | None


def read_offer(scheme: Scheme, headers: RawHeaders) -> Offer | Reason:
    """Return the offer that a scheme finds in the headers, or why there is none.

    Several signatures, in one header or in several, are alternatives. Everything else may be said only once.
    """
    values = _values(headers, scheme.signature_header)
    if not values:
        return Reason.MISSING_SIGNATURE
    if sum(map(len, values)) > LONGEST_HEADER:
        return Reason.MALFORMED_SIGNATURE
    tokens = _TOKEN.findall(b",".join(values))
    macs = _macs(tokens, scheme.encoding)
    parts = {part: _part(part, tokens, scheme, headers) for part in scheme.rules.signed}
    said = [value for value in parts.values() if value]
    stamp = parts.get("t") or parts.get("timestamp")
    sent_at = read_unix_seconds(stamp) if stamp else None
    if not macs or len(said) < len(parts) or (stamp and sent_at is None):
        return Reason.MALFORMED_SIGNATURE
    event_id = parts.get("id")
    return Offer(
        prefix=b"".join(value + b"." for value in said),
        macs=macs,
        sent_at=sent_at,
        event_id=event_id.decode("latin-1") if event_id else None,
    )


def _values(headers: RawHeaders, name: str) -> list[bytes]:
    wanted = name.encode("latin-1")
    return [value for header, value in headers if header == wanted]


def _part(part: str, tokens: list[bytes], scheme: Scheme, headers: RawHeaders) -> bytes | None:
    """Return what precedes the body under this name, if it is said, and said in one way only."""
    if part == "t":
        said = {token[2:] for token in tokens if token.startswith(b"t=")}
    else:
        said = {value.strip() for value in _values(headers, scheme.header(part) or "")}
    value = said.pop() if len(said) == 1 else b""
    return value if 0 < len(value) <= LONGEST_HEADER else None


def _macs(tokens: list[bytes], encoding: Encoding) -> tuple[bytes, ...]:
    decoded = (decode_mac(token, encoding) or decode_mac(_unlabelled(token), encoding) for token in tokens)
    return tuple(islice((mac for mac in decoded if mac is not None), MOST_SIGNATURES))


def _unlabelled(token: bytes) -> bytes:
    label = _LABEL.match(token)
    return token if label is None else token[label.end() :]
