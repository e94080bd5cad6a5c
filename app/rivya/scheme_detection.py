"""Detects how deliveries are signed: tries every scheme on a delivery that a known secret must have signed.

Rivya documents no scheme. But the secret is known, and a 256-bit MAC cannot match by accident: the family, header
names, encoding and key form under which it matches are the ones that were used. Headers are selected by name: those
that contain `signature`, end with `timestamp`, or end with `id`; the names that a family documents are tried first.

Only a body that is a JSON object proves a scheme. Else an attacker with one delivery signed as `<t>.<body>` could send
these bytes as a body, and so prove a scheme without a timestamp. The body is parsed once a MAC is right: before, it may
be anybody's.
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product
from typing import Final

from app.core.records import json_object
from app.rivya.schemes import RULES, Encoding, Family, KeyForm, Scheme, derive_key
from app.rivya.signature import (
    LONGEST_HEADER,
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
_DOCUMENTED: Final = frozenset(name for rules in RULES.values() for name in rules.headers.values())
_COST_OF_ATTEMPT: Final = 8 * 1024
_COST_OF_HEADER_BYTE: Final = 16
MOST_EFFORT: Final = 4 * 1024 * 1024
"""For one delivery: some 4 ms, however large it is and whatever headers it has."""


@dataclass(slots=True)
class Effort:
    """The work that detection may still do, in bytes to hash; an attempt, or a byte of a header, counts as several."""

    left: int = MOST_EFFORT
    is_exceeded: bool = False

    def spend(self, cost: int) -> bool:
        """Whether that much was left."""
        self.is_exceeded = self.is_exceeded or cost > self.left
        self.left -= 0 if self.is_exceeded else cost
        return not self.is_exceeded


@dataclass(frozen=True, slots=True)
class DetectedScheme:
    """A scheme under which a MAC of the delivery is right, and the result of verifying it so."""

    scheme: Scheme
    result: Verified | Refused
    """`Refused` only for its timestamp: signed with our secret, but too far in the past or future."""

    @property
    def has_documented_names(self) -> bool:
        """All of its headers have the names that its family documents."""
        rules = self.scheme.rules.headers
        return all(self.scheme.header(option) == name for option, name in rules.items())


def detect_scheme(
    headers: RawHeaders, body: bytes, *, secrets: Sequence[str], now: datetime, effort: Effort
) -> DetectedScheme | None:
    """The strongest scheme under which one of `secrets` signed `body`, or None, also without `effort`. Never raises.

    The strongest is the one that signs most beside the body: id and timestamp, timestamp, nothing.
    """
    for scheme, claim in _claims(headers, effort):
        for number, form, key in _keys(secrets):
            if not effort.spend(_COST_OF_ATTEMPT + len(claim.prefix) + len(body)):
                return None
            mac = hmac.new(key, claim.prefix, hashlib.sha256)
            mac.update(body)
            if is_among(mac.digest(), claim.macs) and json_object(body) is not None:
                signer = replace(scheme, key_form=form, encoding=_encoding(scheme, headers, mac.digest()))
                return DetectedScheme(signer, check_timestamp(number, claim, now))
    return None


def _claims(headers: RawHeaders, effort: Effort) -> Iterator[tuple[Scheme, SignatureClaim]]:
    """Every scheme and claim that these headers may have, the strongest scheme first."""
    for scheme in _schemes(headers):
        size = sum(len(value) for name, value in headers if name == scheme.signature_header.encode("latin-1"))
        if not effort.spend(_COST_OF_ATTEMPT + _COST_OF_HEADER_BYTE * min(size, LONGEST_HEADER)):
            return
        claim = SignatureHeaderParser(scheme).read(headers)
        if isinstance(claim, SignatureClaim):
            yield scheme, claim


def _encoding(scheme: Scheme, headers: RawHeaders, mac: bytes) -> Encoding:
    claim = SignatureHeaderParser(replace(scheme, encoding=Encoding.HEX)).read(headers)
    return Encoding.HEX if isinstance(claim, SignatureClaim) and is_among(mac, claim.macs) else Encoding.BASE64


def _schemes(headers: RawHeaders) -> Iterator[Scheme]:
    names = sorted(
        dict.fromkeys(name.decode("latin-1") for name, _ in headers), key=lambda name: name not in _DOCUMENTED
    )
    signatures = [name for name in names if "signature" in name and not name.endswith(_ROLES)][:_MOST_PER_ROLE]
    stamps, ids = (_headers_of(role, names, signatures) for role in _ROLES)
    # Placeholders: the MAC shows which encoding and form it is.
    rest = (Encoding.ANY, KeyForm.WHOLE)
    for signature, stamp, identity in product(signatures, stamps, ids):
        yield Scheme(Family.STANDARD_WEBHOOKS, signature, stamp, identity, *rest)
    for signature in signatures:
        yield Scheme(Family.TIMESTAMPED, signature, None, None, *rest)
    for signature, stamp in product(signatures, stamps):
        yield Scheme(Family.TIMESTAMP_HEADER, signature, stamp, None, *rest)
    for signature in signatures:
        yield Scheme(Family.BODY, signature, None, None, *rest)


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
