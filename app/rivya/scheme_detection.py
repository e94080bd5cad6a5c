"""Detects how deliveries are signed: tries every scheme on a delivery that a known secret must have signed.

Rivya documents no scheme. But the secret is known, and a 256-bit MAC cannot match by accident: the family, header
names, encoding and key form under which it matches are the ones that were used. Headers are selected by name: those
that contain `signature`, end with `timestamp`, or end with `id`.

Only a body that is a JSON object proves a scheme. Else an attacker with one delivery signed as `<t>.<body>` could send
these bytes as a body, and so prove a scheme without a timestamp.
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product
from typing import Final

from app.rivya.parsing import json_object
from app.rivya.schemes import Encoding, Family, KeyForm, Scheme, derive_key
from app.rivya.signature import (
    RawHeaders,
    Refused,
    SignatureClaim,
    SignatureHeaderParser,
    Verified,
    check_timestamp,
    is_among,
)

_ROLES: Final = ("timestamp", "id")
_MOST_PER_ROLE: Final = 4
_MOST_HASHED_BYTES: Final = 32 * 1024 * 1024
"""Per delivery, over all attempts: some 30 ms, however large the delivery."""


@dataclass(frozen=True, slots=True)
class DetectedScheme:
    """A scheme under which a MAC of the delivery is right, and the result of verifying it so."""

    scheme: Scheme
    result: Verified | Refused
    """`Refused` only for its timestamp: signed with our secret, but too far in the past or future."""


def detect_scheme(headers: RawHeaders, body: bytes, *, secrets: Sequence[str], now: datetime) -> DetectedScheme | None:
    """The strongest scheme under which one of `secrets` signed `body`, or None. Never raises.

    The strongest is the one that signs most beside the body: id and timestamp, timestamp, nothing.
    """
    if json_object(body) is None:
        return None
    budget = _MOST_HASHED_BYTES
    for scheme, claim in _claims(headers):
        for number, form, key in _keys(secrets):
            budget -= len(claim.prefix) + len(body)
            if budget < 0:
                return None
            mac = hmac.new(key, claim.prefix, hashlib.sha256)
            mac.update(body)
            if is_among(mac.digest(), claim.macs):
                result = check_timestamp(number, claim, now)
                return DetectedScheme(replace(scheme, key_form=form), result)
    return None


def _claims(headers: RawHeaders) -> Iterator[tuple[Scheme, SignatureClaim]]:
    """Every scheme and claim that these headers may have, the strongest scheme first."""
    for scheme in _schemes(headers):
        claim = SignatureHeaderParser(scheme).read(headers)
        if isinstance(claim, SignatureClaim):
            yield scheme, claim


def _schemes(headers: RawHeaders) -> Iterator[Scheme]:
    names = list(dict.fromkeys(name.decode("latin-1") for name, _ in headers))
    signatures = [name for name in names if "signature" in name and not name.endswith(_ROLES)][:_MOST_PER_ROLE]
    stamps, ids = (_headers_of(role, names, signatures) for role in _ROLES)
    encodings = (Encoding.HEX, Encoding.BASE64)
    form = KeyForm.WHOLE  # a placeholder: the MAC shows which form it is
    for signature, stamp, identity, encoding in product(signatures, stamps, ids, encodings):
        yield Scheme(Family.STANDARD_WEBHOOKS, signature, stamp, identity, encoding, form)
    for signature, encoding in product(signatures, encodings):
        yield Scheme(Family.TIMESTAMPED, signature, None, None, encoding, form)
    for signature, stamp, encoding in product(signatures, stamps, encodings):
        yield Scheme(Family.TIMESTAMP_HEADER, signature, stamp, None, encoding, form)
    for signature, encoding in product(signatures, encodings):
        yield Scheme(Family.BODY, signature, None, None, encoding, form)


def _headers_of(role: str, names: Sequence[str], signatures: Sequence[str]) -> list[str]:
    """The headers of a role; first those named like a signature header, then others, which proxies may have added."""
    matches = [name for name in names if name.endswith(role)]
    alike = {name for name in matches if any(other.startswith(name.removesuffix(role)) for other in signatures)}
    return sorted(matches, key=lambda name: name not in alike)[:_MOST_PER_ROLE]


def _keys(secrets: Sequence[str]) -> Iterator[tuple[int, KeyForm, bytes]]:
    for (number, secret), form in product(enumerate(secrets), KeyForm):
        key = derive_key(secret, form)
        if key is not None:
            yield number, form, key
