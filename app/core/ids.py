"""Ids that this service creates."""

import secrets
import uuid
from datetime import datetime


def uuid7(now: datetime) -> uuid.UUID:
    """A UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits.

    These ids sort by the time they were created.
    """
    milliseconds = int(now.timestamp() * 1000) & ((1 << 48) - 1)
    return uuid.UUID(
        int=milliseconds << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    )


def request_id() -> str:
    """A fresh id for one HTTP request, in Rivya's format (`req_` and 24 hex digits)."""
    return f"req_{secrets.token_hex(12)}"


def path_key() -> str:
    """192 random bits for a secret callback path, as hex, so that a change of case loses nothing."""
    return secrets.token_hex(24)
