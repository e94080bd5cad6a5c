"""The signature schemes as data: four families with headers, encodings and key forms; and the setting that names one.

The setting (`RIVYA_SIGNATURE_SCHEME`) is `family[;option=value…]`, options in any order, all in any case:

    timestamped        ;signature=Rivya-Signature
    standard-webhooks  ;prefix=webhook-           (or id=… ;timestamp=… ;signature=… one by one)
    timestamp-header   ;signature=X-Rivya-Signature ;timestamp=X-Rivya-Timestamp
    body               ;signature=X-Rivya-Signature

and for each of them `encoding=hex|base64|any` (default any: a MAC has 32 bytes, so its length tells which it is) and
`key=whole|suffix|base64|hex`: the whole secret, what follows `whsec_`, or that part decoded. `key` defaults to base64
for standard-webhooks, as that family documents, and to whole for the others. Header names default to those above.
With `auto` the first delivery signed with a new secret shows which one it is (`app.rivya.scheme_detection`).
Rivya documents no scheme.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeVar

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,100}")


class SchemeInvalid(ValueError):
    """The text names no signature scheme; the message says what is valid, and shows nothing of the text."""


class Family(StrEnum):
    """Defines the headers that hold the parts of a signature and the bytes that are signed."""

    TIMESTAMPED = "timestamped"
    STANDARD_WEBHOOKS = "standard-webhooks"
    TIMESTAMP_HEADER = "timestamp-header"
    BODY = "body"


class Encoding(StrEnum):
    """The encoding of the MAC."""

    ANY = "any"
    HEX = "hex"
    BASE64 = "base64"


class KeyForm(StrEnum):
    """The way to derive the key from the secret."""

    WHOLE = "whole"
    SUFFIX = "suffix"
    BASE64 = "base64"
    HEX = "hex"


@dataclass(frozen=True, slots=True)
class FamilyRules:
    """The rules of one family.

    `signed` names the parts before the body in the signed bytes, each followed by a dot: a header option, or `t`, a
    member of the signature header itself. `written` is the format of one signature.
    """

    signed: tuple[str, ...]
    written: str
    encoding: Encoding
    key_form: KeyForm
    headers: Mapping[str, str]


RULES: Final[Mapping[Family, FamilyRules]] = MappingProxyType(
    {
        Family.TIMESTAMPED: FamilyRules(
            ("t",), "t={t},v1={mac}", Encoding.HEX, KeyForm.WHOLE, {"signature": "rivya-signature"}
        ),
        Family.STANDARD_WEBHOOKS: FamilyRules(
            ("id", "timestamp"),
            "v1,{mac}",
            Encoding.BASE64,
            KeyForm.BASE64,
            {"id": "webhook-id", "timestamp": "webhook-timestamp", "signature": "webhook-signature"},
        ),
        Family.TIMESTAMP_HEADER: FamilyRules(
            ("timestamp",),
            "v1={mac}",
            Encoding.HEX,
            KeyForm.WHOLE,
            {"timestamp": "x-rivya-timestamp", "signature": "x-rivya-signature"},
        ),
        Family.BODY: FamilyRules((), "sha256={mac}", Encoding.HEX, KeyForm.WHOLE, {"signature": "x-rivya-signature"}),
    }
)


@dataclass(frozen=True, slots=True)
class Scheme:
    """One complete signature scheme. Header names are lower-case; `str()` is the canonical setting."""

    family: Family
    signature_header: str
    timestamp_header: str | None
    id_header: str | None
    encoding: Encoding
    key_form: KeyForm

    @property
    def rules(self) -> FamilyRules:
        """The rules of its family."""
        return RULES[self.family]

    def header(self, option: str) -> str | None:
        """The header name that an option of the setting gives."""
        return {"signature": self.signature_header, "timestamp": self.timestamp_header, "id": self.id_header}[option]

    def __str__(self) -> str:
        headers = [f"{option}={self.header(option)}" for option in self.rules.headers]
        return ";".join([self.family, *headers, f"encoding={self.encoding}", f"key={self.key_form}"])


def wanted_scheme(setting: str) -> Scheme | None:
    """The scheme that RIVYA_SIGNATURE_SCHEME names, None for `auto`. Raises SchemeInvalid."""
    return None if setting.strip().rstrip("; ").lower() == "auto" else parse_scheme(setting)


def parse_scheme(text: str) -> Scheme:
    """The scheme that a text names. Raises SchemeInvalid."""
    name, *rest = (part.strip().lower() for part in text.strip().split(";"))
    family = _choice(Family, name, "signature family", also="auto (alone)")
    rules = RULES[family]
    options = _options(rest, family)
    encoding = _choice(Encoding, options.get("encoding", Encoding.ANY), "encoding")
    key_form = _choice(KeyForm, options.get("key", rules.key_form), "key")
    headers = _headers(options, rules)
    return Scheme(family, headers["signature"], headers.get("timestamp"), headers.get("id"), encoding, key_form)


def _options(pairs: list[str], family: Family) -> dict[str, str]:
    known = [*RULES[family].headers, "encoding", "key", *(["prefix"] if "id" in RULES[family].headers else [])]
    options: dict[str, str] = {}
    for position, pair in enumerate(filter(None, pairs), start=2):
        option, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or option not in known:
            raise SchemeInvalid(f"part {position} is no option of {family}: use {_listed(known)}, each as option=value")
        if not value:
            raise SchemeInvalid(f"option {option} is empty: give it a value or leave it out")
        if option in options:
            raise SchemeInvalid(f"option {option} is given twice: give it once")
        options[option] = value
    return options


def _headers(options: dict[str, str], rules: FamilyRules) -> dict[str, str]:
    prefixed = {option: options["prefix"] + option for option in rules.headers} if "prefix" in options else {}
    headers = {
        option: options.get(option) or prefixed.get(option, default) for option, default in rules.headers.items()
    }
    for option, name in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise SchemeInvalid(f"{option} is no header name: use letters, digits and dashes")
    if len(set(headers.values())) < len(headers):
        raise SchemeInvalid(f"{_listed(list(headers))} are the same header: give each its own")
    return headers


_Choice = TypeVar("_Choice", Family, Encoding, KeyForm)


def _choice(kind: type[_Choice], value: str, what: str, *, also: str | None = None) -> _Choice:
    try:
        return kind(value)
    except ValueError:
        words = ([also] if also else []) + [str(word) for word in kind]
        raise SchemeInvalid(f"unknown {what}: use {_listed(words)}") from None


def _listed(words: list[str]) -> str:
    return ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else words[0]


_PREFIX: Final = b"whsec_"
MAC_SIZE: Final = 32
_SHORTEST_MAC: Final = 43
"""Characters: base64 without its padding."""
_STANDARD_ALPHABET: Final = bytes.maketrans(b"-_", b"+/")


def derive_key(secret: str, form: KeyForm) -> bytes | None:
    """The key of a secret in this form, or None where the form doesn't fit the secret.

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
    """The bytes of a hex text of either case, or None."""
    try:
        return binascii.unhexlify(text)
    except binascii.Error:
        return None


def decode_base64(text: bytes) -> bytes | None:
    """The bytes of a base64 text of either alphabet, padded or not, or None."""
    unpadded = text.translate(_STANDARD_ALPHABET).rstrip(b"=")
    try:
        return base64.b64decode(unpadded + b"=" * (-len(unpadded) % 4), validate=True)
    except binascii.Error:
        return None


def decode_mac(text: bytes, encoding: Encoding) -> bytes | None:
    """The 32 bytes of an encoded HMAC-SHA256, or None. Its length shows whether it is hex or base64."""
    if len(text) < _SHORTEST_MAC:
        return None
    if len(text) == 2 * MAC_SIZE:
        return None if encoding is Encoding.BASE64 else decode_hex(text)
    mac = None if encoding is Encoding.HEX else decode_base64(text)
    return mac if mac is not None and len(mac) == MAC_SIZE else None


def encode_mac(mac: bytes, encoding: Encoding) -> str:
    """A MAC as base64, or else as hex."""
    return base64.b64encode(mac).decode() if encoding is Encoding.BASE64 else mac.hex()
