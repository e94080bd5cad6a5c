"""Read what the headers of a delivery offer as proof: the signatures, and the bytes signed before the body."""

import re
from binascii import unhexlify
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from app.core.records import value
from app.rivya.keys import decode_mac
from app.rivya.schemes import Encoding, Scheme
from app.rivya.timestamps import read_unix_seconds, unix_seconds

RawHeaders = Sequence[tuple[bytes, bytes]]
"""Headers as ASGI gives them: names in lower case."""

MOST_SIGNATURES: Final = 16
LONGEST_HEADER: Final = 4096
_TOKEN: Final = re.compile(rb"[^\s,;]+")
_USUAL: Final = re.compile(rb"t=([0-9]{1,14}),v1=([0-9A-Fa-f]{64})")
_LABEL: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_-]{0,19}[=:]")  # sha256= v1= sig= …; a `v1,` is cut off by the comma


class Reason(StrEnum):
    """Why a delivery was refused."""

    MISSING_SIGNATURE = "missing_signature"
    MALFORMED_SIGNATURE = "malformed_signature"
    STALE_TIMESTAMP = "stale_timestamp"
    FUTURE_TIMESTAMP = "future_timestamp"
    SIGNATURE_MISMATCH = "signature_mismatch"
    NO_SECRET = "no_secret"  # noqa: S105


@value()
class Offer:
    """What a sender claims: MACs over `prefix` and the body, and when it says it signed (Unix seconds)."""

    prefix: bytes
    macs: Sequence[bytes]
    sent_at: float | None
    event_id: str | None


class OfferReader:
    """Reads what a scheme finds in the headers; everything about the scheme is worked out once."""

    def __init__(self, scheme: Scheme) -> None:
        self._encoding = scheme.encoding
        self._signature = scheme.signature_header.encode("latin-1")
        signed = scheme.rules.signed
        headers = [None if part == "t" else (scheme.header(part) or "").encode("latin-1") for part in signed]
        self._signed: Final = tuple(zip(signed, headers, strict=True))
        self._may_be_usual = signed == ("t",) and scheme.encoding is not Encoding.BASE64

    def read(self, headers: RawHeaders) -> Offer | Reason:
        """Return the offer, or why there is none.

        Several signatures, in one header or in several, are alternatives. Everything else may be said only once.
        """
        values = [value for name, value in headers if name == self._signature]
        if not values:
            return Reason.MISSING_SIGNATURE
        written = values[0] if len(values) == 1 else b",".join(values)
        if len(written) > LONGEST_HEADER:
            return Reason.MALFORMED_SIGNATURE
        if self._may_be_usual and (usual := _USUAL.fullmatch(written)) is not None:
            stamp, mac = usual.groups()  # the same that `_read` makes of it, at a third of the price
            return Offer(stamp + b".", [unhexlify(mac)], unix_seconds(stamp), None)
        return self._read(written, headers)

    def _read(self, written: bytes, headers: RawHeaders) -> Offer | Reason:
        tokens = _TOKEN.findall(written)
        macs = _macs(tokens, self._encoding)
        if not macs:
            return Reason.MALFORMED_SIGNATURE
        prefix, sent_at, event_id = b"", None, None
        for part, header in self._signed:
            value = _said_once(_times(tokens) if header is None else _stripped(headers, header))
            if value is None:
                return Reason.MALFORMED_SIGNATURE
            prefix += value + b"."
            if part == "id":
                event_id = value.decode("latin-1")
            else:
                sent_at = read_unix_seconds(value)
                if sent_at is None:
                    return Reason.MALFORMED_SIGNATURE
        return Offer(prefix, macs, sent_at, event_id)


def _times(tokens: Sequence[bytes]) -> list[bytes]:
    return [token[2:] for token in tokens if token.startswith(b"t=")]


def _stripped(headers: RawHeaders, wanted: bytes) -> list[bytes]:
    return [value.strip() for name, value in headers if name == wanted]


def _said_once(values: list[bytes]) -> bytes | None:
    """Return what precedes the body under one name, if it is said, and said in one way only."""
    if len(values) != 1 and len(set(values)) != 1:
        return None
    return values[0] if 0 < len(values[0]) <= LONGEST_HEADER else None


def _macs(tokens: Sequence[bytes], encoding: Encoding) -> list[bytes]:
    macs = []
    for token in tokens:
        label = _LABEL.match(token)  # no MAC has one: it would have a "=" or ":" in its middle
        mac = decode_mac(token if label is None else token[label.end() :], encoding)
        if mac is not None:
            macs.append(mac)
    return macs[:MOST_SIGNATURES]
