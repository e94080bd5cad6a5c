"""What holds for every scheme and for any bytes."""

import base64
import re
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from app.rivya.schemes import RULES, Encoding, Family, KeyForm, Scheme
from app.rivya.signature import Reason, Refused, Verified, Verifier, sign

NOW = datetime(2026, 5, 11, tzinfo=UTC)


def scheme_of(family: Family, encoding: Encoding, key_form: KeyForm) -> Scheme:
    headers = RULES[family].headers
    return Scheme(family, headers["signature"], headers.get("timestamp"), headers.get("id"), encoding, key_form)


def secret_for(scheme: Scheme, key: bytes) -> str:
    if scheme.key_form is KeyForm.BASE64:
        return "whsec_" + base64.b64encode(key).decode()
    return "whsec_" + key.hex()


def raw(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]


schemes = st.builds(scheme_of, st.sampled_from(Family), st.sampled_from(Encoding), st.sampled_from(KeyForm))
keys = st.binary(min_size=1, max_size=64)
bodies = st.binary(max_size=300)
event_ids = st.text("abcXYZ019_-", min_size=1, max_size=40)


@given(schemes, keys, bodies, event_ids)
def test_what_was_signed_verifies(scheme: Scheme, key: bytes, body: bytes, event_id: str) -> None:
    secret = secret_for(scheme, key)
    headers = raw(sign(scheme, secret, body, timestamp=NOW, event_id=event_id))
    outcome = Verifier(scheme, [secret]).verify(headers, body, NOW)
    assert isinstance(outcome, Verified)
    assert outcome.event_id == (event_id if scheme.family is Family.STANDARD_WEBHOOKS else None)


@given(schemes, keys, st.binary(min_size=1, max_size=300), st.data())
def test_a_changed_byte_in_the_body_is_refused(scheme: Scheme, key: bytes, body: bytes, data: st.DataObject) -> None:
    secret = secret_for(scheme, key)
    headers = raw(sign(scheme, secret, body, timestamp=NOW, event_id="msg_1"))
    position = data.draw(st.integers(0, len(body) - 1))
    changed = bytearray(body)
    changed[position] ^= data.draw(st.integers(1, 255))
    assert Verifier(scheme, [secret]).verify(headers, bytes(changed), NOW) == Refused(
        Reason.SIGNATURE_MISMATCH, None if scheme.family is Family.BODY else 0.0
    )


_BEFORE_MAC = re.compile(rb"^(sha256=|v1,|(t=\d+,)?v1=)")
"""A MAC in base64 may hold any of these itself."""


@given(schemes, keys, bodies, st.integers(1, 255), st.integers(0, 31))
def test_a_changed_byte_in_the_mac_is_refused(
    scheme: Scheme, key: bytes, body: bytes, change: int, position: int
) -> None:
    secret = secret_for(scheme, key)
    headers = raw(sign(scheme, secret, body, timestamp=NOW, event_id="msg_1"))
    forged = [(name, _with_changed_mac(value, change, position)) for name, value in headers if b"signature" in name]
    others = [pair for pair in headers if b"signature" not in pair[0]]
    outcome = Verifier(scheme, [secret]).verify([*forged, *others], body, NOW)
    assert isinstance(outcome, Refused)
    assert outcome.reason is Reason.SIGNATURE_MISMATCH


def _with_changed_mac(value: bytes, change: int, position: int) -> bytes:
    written = _BEFORE_MAC.sub(b"", value)
    mac = bytearray(bytes.fromhex(written.decode()) if len(written) == 64 else base64.b64decode(written))
    mac[position] ^= change
    return value.removesuffix(written) + mac.hex().encode() if len(written) == 64 else _base64(value, written, mac)


def _base64(value: bytes, written: bytes, mac: bytearray) -> bytes:
    return value.removesuffix(written) + base64.b64encode(mac)


@given(schemes.filter(lambda scheme: scheme.family is not Family.BODY), keys, bodies, st.integers(1, 299))
def test_a_changed_timestamp_is_refused_even_within_the_tolerance(
    scheme: Scheme, key: bytes, body: bytes, seconds: int
) -> None:
    secret = secret_for(scheme, key)
    stamp = str(int(NOW.timestamp()))
    later = str(int(NOW.timestamp()) + seconds)
    headers = sign(scheme, secret, body, timestamp=stamp, event_id="msg_1")
    changed = raw([(name, value.replace(stamp, later)) for name, value in headers])
    assert isinstance(Verifier(scheme, [secret]).verify(changed, body, NOW), Refused)


@given(schemes, keys, keys, bodies)
def test_another_secret_does_not_verify(scheme: Scheme, key: bytes, other: bytes, body: bytes) -> None:
    secret, wrong = secret_for(scheme, key), secret_for(scheme, other + b"\x01" + key)
    headers = raw(sign(scheme, wrong, body, timestamp=NOW, event_id="msg_1"))
    assert isinstance(Verifier(scheme, [secret]).verify(headers, body, NOW), Refused)


pieces = st.sampled_from([b"t=", b"v1=", b"v1,", b"sha256=", b"0" * 64, b"A" * 43 + b"=", b",", b" ", b"1778457600"])
values = st.binary(max_size=60) | st.lists(pieces | st.binary(max_size=5), max_size=8).map(b"".join)


@given(schemes, bodies, st.data())
def test_no_bytes_in_headers_or_body_raise(scheme: Scheme, body: bytes, data: st.DataObject) -> None:
    known = [name.encode() for name in scheme.rules.headers.values()]
    names = st.sampled_from(known) | st.binary(max_size=20)
    headers = data.draw(st.lists(st.tuples(names, values), max_size=6))
    assert isinstance(Verifier(scheme, ["whsec_abcd", "\udcff"]).verify(headers, body, NOW), Refused)
