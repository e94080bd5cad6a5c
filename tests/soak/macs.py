"""Says, apart from the code under test, whether somebody who knows the secret signed these bytes, and when."""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator
from datetime import UTC, datetime

SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes of a secret key").decode()
Headers = list[tuple[bytes, bytes]]

_KEYS = {"standard-webhooks": base64.b64decode(SECRET.removeprefix("whsec_"))}
_LONGEST_AGE = 300


def is_genuine(family: str, headers: Headers, body: bytes, now: datetime) -> bool:
    """A MAC over what this family signs stands in a header, and the time that is signed is within 300 s.

    Under whichever label and in whichever notation: a MAC can't fit by accident.
    """
    claimed = b"\n".join(value for _, value in headers)
    key = _KEYS.get(family, SECRET.encode())
    for prefix, stamp in _prefixes(family, headers):
        mac = hmac.new(key, prefix + body, hashlib.sha256)
        if _stands_in(claimed, mac.digest()) and (stamp is None or _is_of_now(stamp, now)):
            return True
    return False


def _prefixes(family: str, headers: Headers) -> Iterator[tuple[bytes, bytes | None]]:
    values = [value.strip() for _, value in headers]
    if family == "body":
        yield b"", None
    elif family == "timestamp-header":
        yield from ((value + b".", value) for value in values)
    elif family == "standard-webhooks":
        yield from ((first + b"." + second + b".", second) for first in values for second in values)
    else:
        for token in re.split(rb"[\s,;]+", b",".join(values)):
            if token.startswith(b"t="):
                yield token[2:] + b".", token[2:]


def _stands_in(claimed: bytes, mac: bytes) -> bool:
    encoded = base64.b64encode(mac).rstrip(b"=")
    in_base64 = encoded in claimed or encoded.translate(bytes.maketrans(b"+/", b"-_")) in claimed
    return (
        in_base64
        or mac.hex().encode() in claimed.lower()
        or encoded in claimed.translate(bytes.maketrans(b"-_", b"+/"))
    )


def _is_of_now(stamp: bytes, now: datetime) -> bool:
    text = stamp.decode("latin-1")
    try:
        seconds = float(text)
    except ValueError:
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            return False
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        return abs((time - now).total_seconds()) <= _LONGEST_AGE
    seconds = seconds / 1000 if seconds >= 1e11 else seconds
    return abs(seconds - now.timestamp()) <= _LONGEST_AGE
