"""Verify that a delivery was signed with one of our secrets, over its raw bytes; and sign like a sender.

The checks come in this order: `no_secret` (nothing can be verified: fail closed), `missing_signature`,
`malformed_signature`, `signature_mismatch`, and only for a MAC that is right `stale_timestamp` or `future_timestamp`.
So a forger learns nothing about our clock or tolerance, and an operator who sees a stale or future timestamp knows that
the sender is genuine and that a clock is off or the delivery old.
"""

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from app.core.records import value
from app.rivya.keys import derive_key, encode_mac
from app.rivya.offer import Offer, OfferReader, RawHeaders, Reason
from app.rivya.schemes import Encoding, Scheme, SchemeInvalid, parse_scheme, wanted_scheme

__all__ = [
    "TOLERANCE",
    "RawHeaders",
    "Reason",
    "Refused",
    "Scheme",
    "SchemeInvalid",
    "Verified",
    "Verifier",
    "parse_scheme",
    "sign",
    "wanted_scheme",
]

TOLERANCE: Final = timedelta(seconds=300)
_TOLERANCE_SECONDS: Final = TOLERANCE.total_seconds()


@value()
class Verified:
    """The delivery is genuine.

    `event_id` is the signed id header, where the scheme has one. `offset_seconds` is the sender's time minus ours.
    `secret_number` is the place of the secret that fits among those the verifier was given.
    """

    secret_number: int
    event_id: str | None = None
    offset_seconds: float | None = None


@value()
class Refused:
    """The delivery is not proved genuine. `offset_seconds`, where known, is the sender's claimed time minus ours."""

    reason: Reason
    offset_seconds: float | None = None


class Verifier:
    """One scheme and the secrets that are current, with every key prepared once."""

    def __init__(self, scheme: Scheme, secrets: Sequence[str]) -> None:
        self.scheme = scheme
        self._reader = OfferReader(scheme)
        keys = ((number, derive_key(secret, scheme.key_form)) for number, secret in enumerate(secrets))
        self._keyed = [(number, hmac.new(key, digestmod=hashlib.sha256)) for number, key in keys if key is not None]

    @property
    def usable_secrets(self) -> int:
        """How many of the secrets fit the scheme's key form; with none, every delivery is refused as `no_secret`."""
        return len(self._keyed)

    def verify(self, headers: RawHeaders, body: bytes, now: datetime) -> Verified | Refused:
        """Say whether a current secret signed the body within the tolerance of `now`. No bytes make it raise."""
        if not self._keyed:
            return Refused(Reason.NO_SECRET)
        offer = self._reader.read(headers)
        if isinstance(offer, Reason):
            return Refused(offer)
        secret_number = self._fitting_secret(offer, body)
        if secret_number is None:
            return Refused(Reason.SIGNATURE_MISMATCH, _offset(offer, now))
        return judged(secret_number, offer, now)

    def _fitting_secret(self, offer: Offer, body: bytes) -> int | None:
        for number, keyed in self._keyed:
            mac = keyed.copy()  # prepared keys, and no copy of the body
            mac.update(offer.prefix)
            mac.update(body)
            if _is_among(mac.digest(), offer.macs):
                return number
        return None


def _is_among(expected: bytes, offered: Sequence[bytes]) -> bool:
    """Compare with all of them, each in constant time."""
    found = False
    for mac in offered:
        found |= hmac.compare_digest(expected, mac)
    return found


def judged(secret_number: int, offer: Offer, now: datetime) -> Verified | Refused:
    """Say what an offer comes to whose MAC is right: verified, or signed too far from `now`."""
    offset = _offset(offer, now)
    if offset is not None and abs(offset) > _TOLERANCE_SECONDS:
        return Refused(Reason.STALE_TIMESTAMP if offset < 0 else Reason.FUTURE_TIMESTAMP, offset)
    return Verified(secret_number, offer.event_id, offset)


def _offset(offer: Offer, now: datetime) -> float | None:
    return None if offer.sent_at is None else offer.sent_at - now.timestamp()


def sign(
    scheme: Scheme, secret: str, body: bytes, *, timestamp: datetime | str, event_id: str
) -> list[tuple[str, str]]:
    """Return the headers with which a sender of this scheme would sign the body.

    A `datetime` is written as Unix seconds, a string as it is. Raises ValueError if the secret has no such key form.
    """
    key = derive_key(secret, scheme.key_form)
    if key is None:
        raise ValueError(f"the secret has no key of the form {scheme.key_form}")
    stamp = timestamp if isinstance(timestamp, str) else str(int(timestamp.timestamp()))
    said = {"t": stamp, "timestamp": stamp, "id": event_id}
    prefix = "".join(f"{said[part]}." for part in scheme.rules.signed)
    mac = hmac.digest(key, prefix.encode() + body, "sha256")
    encoding = scheme.rules.encoding if scheme.encoding is Encoding.ANY else scheme.encoding
    said["signature"] = scheme.rules.written.format(t=stamp, mac=encode_mac(mac, encoding))
    return [(scheme.header(option) or "", said[option]) for option in scheme.rules.headers]
