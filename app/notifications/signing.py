"""Secrets of endpoints and callbacks, and the headers that sign a notification.

Each notification is signed twice, so that either verifier accepts it: in the scheme that was proven for Rivya's own
deliveries, and by the Standard Webhooks specification.
"""

import hashlib
import hmac
import secrets as random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from app.rivya import signature
from app.rivya.schemes import Family, Scheme, parse_scheme

OVERLAP: Final = timedelta(hours=72)
"""For so long after a rotation the old secret signs too."""
_PREFIX: Final = "whsec_"
_STANDARD: Final = parse_scheme("standard-webhooks;key=base64;encoding=base64")


def new_secret() -> str:
    """A new secret. Its 64 hex digits are valid base64 too, so that every way to derive a key from it works."""
    return _PREFIX + random.token_hex(32)


def callback_secret(master: str, token_name: str) -> str:
    """The secret that signs the callbacks of one token, whose name is never used again."""
    return _PREFIX + hmac.digest(master.encode(), b"callback:" + token_name.encode(), hashlib.sha256).hex()


def preview(secret: str) -> str:
    """Enough of a secret to recognise it: `whsec_12...abc123`."""
    return f"{secret[:8]}...{secret[-6:]}"


def valid_secrets(secret: str, previous: str | None, rotated_at: datetime | None, now: datetime) -> tuple[str, ...]:
    """The secrets that sign at `now`, the newest first."""
    if previous is None or rotated_at is None or now >= rotated_at + OVERLAP:
        return (secret,)
    return secret, previous


def sign(body: bytes, secrets: Sequence[str], *, event_id: str, now: datetime, scheme: Scheme | None) -> dict[str, str]:
    """The headers that sign the body; names in lower case. `secrets`: those valid now, the newest first.

    `scheme`: the one proven for Rivya's deliveries, None while none is. Where its family has no way to write more than
    one signature, only the newest secret signs in it. If it shares a header with the specification, that header has the
    signatures of both.
    """
    standard = _headers(_STANDARD, body, secrets, event_id=event_id, now=now)
    if scheme is None:
        return standard
    headers = _headers(scheme, body, secrets, event_id=event_id, now=now)
    shared = headers.get(_STANDARD.signature_header)
    if shared is not None and shared != standard[_STANDARD.signature_header]:
        standard[_STANDARD.signature_header] += f" {shared}"
    return headers | standard


def _headers(scheme: Scheme, body: bytes, secrets: Sequence[str], *, event_id: str, now: datetime) -> dict[str, str]:
    signed = [dict(signature.sign(scheme, secret, body, timestamp=now, event_id=event_id)) for secret in secrets]
    values = [headers[scheme.signature_header] for headers in signed]
    if scheme.family is Family.TIMESTAMPED:
        values = [",".join([values[0], *(value.rpartition(",")[2] for value in values[1:])])]
    elif scheme.family is Family.STANDARD_WEBHOOKS:
        values = [" ".join(values)]
    return signed[0] | {scheme.signature_header: values[0]}
