"""Find out by proof how deliveries are signed: try every scheme on one that a known secret must have signed; pure.

Rivya documents no scheme. But the secret is known, and a 256-bit MAC that matches cannot match by accident: whichever
family, header names, encoding and key form make it match are the ones that were used. Headers are found by their role:
what ends with (or contains) `signature`, what ends with `timestamp`, what ends with `id`.

Only a body that is a JSON object can prove anything. Without that rule whoever has seen one delivery signed as
`<t>.<body>` could send those very bytes as a body, and so prove a scheme without a timestamp.
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product
from typing import Final

import orjson

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
"""Per delivery, over all that is tried: some 30 ms, however large and contrived the delivery."""


@dataclass(frozen=True, slots=True)
class DetectedScheme:
    """A scheme with a MAC of its kind that is right, and what the delivery comes to under that scheme."""

    scheme: Scheme
    result: Verified | Refused
    """`Refused` only for its timestamp: signed with our secret, but too long ago or ahead of time."""


def detect_scheme(headers: RawHeaders, body: bytes, *, secrets: Sequence[str], now: datetime) -> DetectedScheme | None:
    """Return the strongest scheme under which one of `secrets` signed `body`, or None. No bytes make it raise.

    Of several that fit, the one that signs most beside the body is returned: id and timestamp, timestamp, nothing.
    """
    if not _is_object(body):
        return None
    budget = _MOST_HASHED_BYTES
    for offered, offer in _offers(headers):
        for number, form, key in _keys(secrets):
            budget -= len(offer.prefix) + len(body)
            if budget < 0:
                return None
            mac = hmac.new(key, offer.prefix, hashlib.sha256)
            mac.update(body)
            if is_among(mac.digest(), offer.macs):
                result = check_timestamp(number, offer, now)
                return DetectedScheme(replace(offered, key_form=form), result)
    return None


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(orjson.loads(body), dict)
    except orjson.JSONDecodeError:
        return False


def _offers(headers: RawHeaders) -> Iterator[tuple[Scheme, SignatureClaim]]:
    """Everything that these headers may mean, the strongest first."""
    for scheme in _schemes(headers):
        offer = SignatureHeaderParser(scheme).read(headers)
        if isinstance(offer, SignatureClaim):
            yield scheme, offer


def _schemes(headers: RawHeaders) -> Iterator[Scheme]:
    names = list(dict.fromkeys(name.decode("latin-1") for name, _ in headers))
    signatures = [name for name in names if "signature" in name and not name.endswith(_ROLES)][:_MOST_PER_ROLE]
    stamps, ids = (_beside(signatures, names, role) for role in _ROLES)
    encodings = (Encoding.HEX, Encoding.BASE64)
    form = KeyForm.WHOLE  # says nothing yet: which form it is shows by the MAC
    for signature, stamp, identity, encoding in product(signatures, stamps, ids, encodings):
        yield Scheme(Family.STANDARD_WEBHOOKS, signature, stamp, identity, encoding, form)
    for signature, encoding in product(signatures, encodings):
        yield Scheme(Family.TIMESTAMPED, signature, None, None, encoding, form)
    for signature, stamp, encoding in product(signatures, stamps, encodings):
        yield Scheme(Family.TIMESTAMP_HEADER, signature, stamp, None, encoding, form)
    for signature, encoding in product(signatures, encodings):
        yield Scheme(Family.BODY, signature, None, None, encoding, form)


def _beside(signatures: Sequence[str], names: Sequence[str], role: str) -> list[str]:
    """The headers of a role; first those named like a signature header, then what proxies may have added."""
    found = [name for name in names if name.endswith(role)]
    alike = {name for name in found if any(other.startswith(name.removesuffix(role)) for other in signatures)}
    return sorted(found, key=lambda name: name not in alike)[:_MOST_PER_ROLE]


def _keys(secrets: Sequence[str]) -> Iterator[tuple[int, KeyForm, bytes]]:
    for (number, secret), form in product(enumerate(secrets), KeyForm):
        key = derive_key(secret, form)
        if key is not None:
            yield number, form, key
