"""Verifies that a delivery was signed with one of our secrets, over its raw bytes; and signs like a sender.

The checks come in this order: `no_secret` (nothing can be verified: fail closed), `missing_signature`,
`malformed_signature`, `signature_mismatch`, and only for a MAC that is right `stale_timestamp` or `future_timestamp`.
A forger therefore learns nothing about our clock or tolerance. A stale or future timestamp means that the sender is
genuine, and that a clock is wrong or the delivery old.
"""

import hashlib
import hmac
import re
from binascii import unhexlify
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Final

from app.core.models import hot_dataclass
from app.rivya.payloads import read_unix_seconds, unix_seconds
from app.rivya.schemes import Encoding, Scheme, decode_mac, derive_key, encode_mac

RawHeaders = Sequence[tuple[bytes, bytes]]
"""Headers as ASGI gives them: names in lower case."""

MOST_SIGNATURES: Final = 16
_MOST_TOKENS: Final = 4 * MOST_SIGNATURES
LONGEST_HEADER: Final = 4096
_TOKEN: Final = re.compile(rb"[^\s,;]+")
_USUAL: Final = re.compile(rb"t=([0-9]{1,14}),v1=([0-9A-Fa-f]{64})")
_LABEL: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_-]{0,19}[=:]")  # sha256= v1= sig= …; in `v1,` the comma ends the token


class Reason(StrEnum):
    """The reason for refusing a delivery."""

    MISSING_SIGNATURE = "missing_signature"
    MALFORMED_SIGNATURE = "malformed_signature"
    STALE_TIMESTAMP = "stale_timestamp"
    FUTURE_TIMESTAMP = "future_timestamp"
    SIGNATURE_MISMATCH = "signature_mismatch"
    NO_SECRET = "no_secret"  # noqa: S105


@hot_dataclass()
class SignatureClaim:
    """The claim of the headers: MACs over `prefix` and the body, and the time of signing (Unix seconds)."""

    prefix: bytes
    macs: Sequence[bytes]
    sent_at: float | None
    event_id: str | None


class SignatureHeaderParser:
    """Reads signature claims from headers, for one scheme that is prepared once."""

    def __init__(self, scheme: Scheme) -> None:
        self._encoding = scheme.encoding
        self._signature = scheme.signature_header.encode("latin-1")
        signed = scheme.rules.signed
        headers = [None if part == "t" else (scheme.header(part) or "").encode("latin-1") for part in signed]
        self._signed: Final = tuple(zip(signed, headers, strict=True))
        self._may_be_usual = signed == ("t",) and scheme.encoding is not Encoding.BASE64

    def read(self, headers: RawHeaders) -> SignatureClaim | Reason:
        """The claim, or the reason why there is none.

        Several signatures, in one header or in several, are alternatives. Everything else must have one value.
        """
        values = [value for name, value in headers if name == self._signature]
        if not values:
            return Reason.MISSING_SIGNATURE
        written = values[0] if len(values) == 1 else b",".join(values)
        if len(written) > LONGEST_HEADER:
            return Reason.MALFORMED_SIGNATURE
        if self._may_be_usual and (usual := _USUAL.fullmatch(written)) is not None:
            stamp, mac = usual.groups()  # the same result as `_read`, in a third of its time
            return SignatureClaim(stamp + b".", [unhexlify(mac)], unix_seconds(stamp), None)
        return self._read(written, headers)

    def _read(self, written: bytes, headers: RawHeaders) -> SignatureClaim | Reason:
        tokens = [match.group() for match in islice(_TOKEN.finditer(written), _MOST_TOKENS)]
        macs = _macs(tokens, self._encoding)
        if not macs:
            return Reason.MALFORMED_SIGNATURE
        prefix, sent_at, event_id = b"", None, None
        for part, header in self._signed:
            value = _single_value(_times(tokens) if header is None else _stripped(headers, header))
            if value is None:
                return Reason.MALFORMED_SIGNATURE
            prefix += value + b"."
            if part == "id":
                event_id = value.decode("latin-1")
            else:
                sent_at = read_unix_seconds(value)
                if sent_at is None:
                    return Reason.MALFORMED_SIGNATURE
        return SignatureClaim(prefix, macs, sent_at, event_id)


def _times(tokens: Sequence[bytes]) -> list[bytes]:
    return [token[2:] for token in tokens if token.startswith(b"t=")]


def _stripped(headers: RawHeaders, wanted: bytes) -> list[bytes]:
    return [value.strip() for name, value in headers if name == wanted]


def _single_value(values: list[bytes]) -> bytes | None:
    """The value, if there is exactly one and it is neither empty nor too long; repeats count as one."""
    if len(values) != 1 and len(set(values)) != 1:
        return None
    return values[0] if 0 < len(values[0]) <= LONGEST_HEADER else None


def _macs(tokens: Sequence[bytes], encoding: Encoding) -> list[bytes]:
    macs = []
    for token in tokens:
        label = _LABEL.match(token)  # a MAC never looks like that: it has no "=" or ":" in its middle
        mac = decode_mac(token if label is None else token[label.end() :], encoding)
        if mac is not None:
            macs.append(mac)
    return macs[:MOST_SIGNATURES]


TOLERANCE: Final = timedelta(seconds=300)
_TOLERANCE_SECONDS: Final = TOLERANCE.total_seconds()


@hot_dataclass()
class Verified:
    """The delivery is genuine.

    `event_id` is the signed id header, where the scheme has one. `offset_seconds` is the sender's time minus ours.
    `secret_number` is the index of the matching secret among those of the verifier.
    """

    secret_number: int
    event_id: str | None = None
    offset_seconds: float | None = None


@hot_dataclass()
class Refused:
    """The delivery is not proved genuine. `offset_seconds`, if known, is the claimed time minus ours."""

    reason: Reason
    offset_seconds: float | None = None


class Verifier:
    """Verifies deliveries with one scheme and the current secrets, whose keys are prepared once."""

    def __init__(self, scheme: Scheme, secrets: Sequence[str]) -> None:
        self.scheme = scheme
        self._reader = SignatureHeaderParser(scheme)
        keys = ((number, derive_key(secret, scheme.key_form)) for number, secret in enumerate(secrets))
        self._keyed = [(number, hmac.new(key, digestmod=hashlib.sha256)) for number, key in keys if key is not None]

    @property
    def usable_secrets(self) -> int:
        """The number of secrets that fit the scheme's key form; with 0 every delivery is refused as `no_secret`."""
        return len(self._keyed)

    def verify(self, headers: RawHeaders, body: bytes, now: datetime) -> Verified | Refused:
        """Whether a current secret signed the body within the tolerance around `now`. Never raises."""
        if not self._keyed:
            return Refused(Reason.NO_SECRET)
        claim = self._reader.read(headers)
        if isinstance(claim, Reason):
            return Refused(claim)
        secret_number = self._fitting_secret(claim, body)
        if secret_number is None:
            return Refused(Reason.SIGNATURE_MISMATCH, _offset(claim, now))
        return check_timestamp(secret_number, claim, now)

    def _fitting_secret(self, claim: SignatureClaim, body: bytes) -> int | None:
        for number, keyed in self._keyed:
            mac = keyed.copy()  # reuses the prepared key and does not copy the body
            mac.update(claim.prefix)
            mac.update(body)
            if is_among(mac.digest(), claim.macs):
                return number
        return None


def is_among(expected: bytes, macs: Sequence[bytes]) -> bool:
    """Whether `expected` is one of `macs`; compares with all of them, each in constant time."""
    return True in [hmac.compare_digest(expected, mac) for mac in macs]


def check_timestamp(secret_number: int, claim: SignatureClaim, now: datetime) -> Verified | Refused:
    """The result for a claim with a right MAC: verified, or refused because it was signed too far from `now`."""
    offset = _offset(claim, now)
    if offset is not None and abs(offset) > _TOLERANCE_SECONDS:
        return Refused(Reason.STALE_TIMESTAMP if offset < 0 else Reason.FUTURE_TIMESTAMP, offset)
    return Verified(secret_number, claim.event_id, offset)


def _offset(claim: SignatureClaim, now: datetime) -> float | None:
    return None if claim.sent_at is None else claim.sent_at - now.timestamp()


def sign(
    scheme: Scheme, secret: str, body: bytes, *, timestamp: datetime | str, event_id: str
) -> list[tuple[str, str]]:
    """The headers with which a sender of this scheme signs the body.

    A `datetime` is written as Unix seconds, a string unchanged. Raises ValueError if the secret has no such key form.
    """
    key = derive_key(secret, scheme.key_form)
    if key is None:
        raise ValueError(f"the secret has no key of the form {scheme.key_form}")
    stamp = timestamp if isinstance(timestamp, str) else str(int(timestamp.timestamp()))
    values = {"t": stamp, "timestamp": stamp, "id": event_id}
    prefix = "".join(f"{values[part]}." for part in scheme.rules.signed)
    mac = hmac.digest(key, prefix.encode() + body, "sha256")
    encoding = scheme.rules.encoding if scheme.encoding is Encoding.ANY else scheme.encoding
    values["signature"] = scheme.rules.written.format(t=stamp, mac=encode_mac(mac, encoding))
    return [(scheme.header(option) or "", values[option]) for option in scheme.rules.headers]
