"""Turn a signing secret into key bytes, and written MACs into MAC bytes."""

import base64
import binascii
from typing import Final

from app.rivya.schemes import Encoding, KeyForm

_PREFIX: Final = b"whsec_"
MAC_SIZE: Final = 32
_SHORTEST_MAC: Final = 43
"""Characters: base64 without its padding."""
_STANDARD_ALPHABET: Final = bytes.maketrans(b"-_", b"+/")


def derive_key(secret: str, form: KeyForm) -> bytes | None:
    """Return the key that a secret stands for in this form, or None where the form doesn't fit the secret.

    A secret without `whsec_` is its own suffix.
    """
    try:
        whole = secret.encode()
    except UnicodeEncodeError:
        return None
    suffix = whole.removeprefix(_PREFIX)
    keys = {
        KeyForm.WHOLE: whole,
        KeyForm.SUFFIX: suffix,
        KeyForm.BASE64: decode_base64(suffix),
        KeyForm.HEX: decode_hex(suffix),
    }
    return keys[form] or None


def decode_hex(text: bytes) -> bytes | None:
    """Decode hex of either case, or return None."""
    try:
        return binascii.unhexlify(text)
    except binascii.Error:
        return None


def decode_base64(text: bytes) -> bytes | None:
    """Decode base64 of either alphabet, padded or not, or return None."""
    unpadded = text.translate(_STANDARD_ALPHABET).rstrip(b"=")
    try:
        return base64.b64decode(unpadded + b"=" * (-len(unpadded) % 4), validate=True)
    except binascii.Error:
        return None


def decode_mac(text: bytes, encoding: Encoding) -> bytes | None:
    """Return the 32 bytes of a written HMAC-SHA256, or None. The length alone tells hex from base64."""
    if len(text) < _SHORTEST_MAC:
        return None
    if len(text) == 2 * MAC_SIZE:
        return None if encoding is Encoding.BASE64 else decode_hex(text)
    mac = None if encoding is Encoding.HEX else decode_base64(text)
    return mac if mac is not None and len(mac) == MAC_SIZE else None


def encode_mac(mac: bytes, encoding: Encoding) -> str:
    """Write a MAC the way a sender does."""
    return base64.b64encode(mac).decode() if encoding is Encoding.BASE64 else mac.hex()
