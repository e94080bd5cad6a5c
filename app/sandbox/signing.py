"""Signatures of deliveries: four families of HMAC-SHA256; header names, encoding and key form can be set."""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Literal

Family = Literal["timestamped", "standard", "separate", "body"]
KeyForm = Literal["whole", "suffix", "base64", "hex"]


@dataclass(frozen=True)
class Scheme:
    """One way to sign; `timestamp_header` and `id_header` are used only by the families that send them."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    family: Family = "timestamped"
    signature_header: str = "Rivya-Signature"
    timestamp_header: str = "Rivya-Timestamp"
    id_header: str = "Rivya-Id"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""
    """Text before the signature in the families `separate` and `body`: `sha256=`, `v1=` or nothing."""
    key_form: KeyForm = "whole"
    timestamp_format: Literal["unix", "iso"] = "unix"
    """The timestamp's format in the family `separate`."""


def key_bytes(secret: str, form: KeyForm) -> bytes:
    """The HMAC key in a secret. Raises ValueError where its suffix does not have the form."""
    suffix = secret.removeprefix("whsec_")
    match form:
        case "whole":
            return secret.encode()
        case "suffix":
            return suffix.encode()
        case "base64":
            return base64.b64decode(suffix, validate=True)
        case "hex":
            return bytes.fromhex(suffix)


@dataclass(frozen=True)
class Message:
    """The signed content: the event's id, the time of sending and the exact bytes of the body."""

    event_id: str
    sent_at: datetime
    body: bytes


def sign(scheme: Scheme, secrets: list[str], message: Message) -> dict[str, str]:
    """The headers of a signed delivery; all secrets sign where the family allows it, else the first."""
    unix = str(int(message.sent_at.timestamp()))
    match scheme.family:
        case "timestamped":
            signed = unix.encode() + b"." + message.body
            values = [f"v1={_mac(scheme, secret, signed)}" for secret in secrets]
            return {scheme.signature_header: ",".join([f"t={unix}", *values])}
        case "standard":
            signed = f"{message.event_id}.{unix}.".encode() + message.body
            value = " ".join(f"v1,{_mac(scheme, secret, signed)}" for secret in secrets)
            return {scheme.id_header: message.event_id, scheme.timestamp_header: unix, scheme.signature_header: value}
        case "separate":
            iso = f"{message.sent_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
            written = unix if scheme.timestamp_format == "unix" else iso
            value = scheme.prefix + _mac(scheme, secrets[0], written.encode() + b"." + message.body)
            return {scheme.signature_header: value, scheme.timestamp_header: written}
        case "body":
            return {scheme.signature_header: scheme.prefix + _mac(scheme, secrets[0], message.body)}


def _mac(scheme: Scheme, secret: str, signed: bytes) -> str:
    digest = hmac.new(key_bytes(secret, scheme.key_form), signed, hashlib.sha256).digest()
    return digest.hex() if scheme.encoding == "hex" else base64.b64encode(digest).decode()
