"""The scheme is found out by proof, whatever it is called and however it is written, and by nothing less than proof."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from itertools import product
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rivya.scheme_detection import DetectedScheme, Effort
from app.rivya.scheme_detection import detect_scheme as detect_with
from app.rivya.schemes import Encoding, Family, KeyForm
from app.rivya.signature import Reason, Refused, Verified, Verifier

NOW = datetime(2026, 5, 10, 12, tzinfo=UTC)
UNIX = str(int(NOW.timestamp()))
BODY = b'{"id": "evt_1", "type": "webhook.test", "data": {}}'
HEX_SECRET = "whsec_" + "5e" * 24  # hex and base64 at once, so that every key form fits
KEYS = {
    KeyForm.WHOLE: HEX_SECRET.encode(),
    KeyForm.SUFFIX: b"5e" * 24,
    KeyForm.BASE64: base64.b64decode("5e" * 24),
    KeyForm.HEX: bytes.fromhex("5e" * 24),
}
STAMPS = {
    "seconds": UNIX,
    "milliseconds": f"{UNIX}000",
    "iso": "2026-05-10T12:00:00.000Z",
}
Headers = list[tuple[bytes, bytes]]


def detect_scheme(headers: Headers, body: bytes, *, secrets: list[str], now: datetime) -> DetectedScheme | None:
    return detect_with(headers, body, secrets=secrets, now=now, effort=Effort())


def written(mac: bytes, encoding: Encoding) -> str:
    return mac.hex() if encoding is Encoding.HEX else base64.b64encode(mac).decode()


def signed(family: Family, key: bytes, encoding: Encoding, *, stamp: str = UNIX, label: str = "") -> Headers:
    """Headers of a provider that nobody has seen, beside some that a proxy adds."""
    before = {
        Family.TIMESTAMPED: f"{stamp}.",
        Family.STANDARD_WEBHOOKS: f"msg_7.{stamp}.",
        Family.TIMESTAMP_HEADER: f"{stamp}.",
        Family.BODY: "",
    }[family]
    mac = written(hmac.digest(key, before.encode() + BODY, hashlib.sha256), encoding)
    headers = {"x-request-id": "req_9", "traceparent-id": "00-1", "content-type": "application/json"}
    match family:
        case Family.TIMESTAMPED:
            headers["acme-signature"] = f"t={stamp},v1={mac}"
        case Family.STANDARD_WEBHOOKS:
            headers |= {"acme-id": "msg_7", "acme-timestamp": stamp, "acme-signature": f"v1,{mac}"}
        case Family.TIMESTAMP_HEADER:
            headers |= {"x-acme-request-timestamp": stamp, "x-acme-signature": label + mac}
        case Family.BODY:
            headers |= {"x-acme-signature-256": label + mac, "x-acme-timestamp": stamp}
    return [(name.encode(), value.encode()) for name, value in headers.items()]


@pytest.mark.parametrize(
    ("family", "form", "encoding"), list(product(Family, KeyForm, [Encoding.HEX, Encoding.BASE64])), ids=str
)
@pytest.mark.parametrize("stamp", STAMPS)
def test_every_way_of_signing_is_found_and_verifies_ever_after(
    family: Family, form: KeyForm, encoding: Encoding, stamp: str
) -> None:
    headers = signed(family, KEYS[form], encoding, stamp=STAMPS[stamp])
    proof = detect_scheme(headers, BODY, secrets=["whsec_another", HEX_SECRET], now=NOW)
    assert proof is not None
    assert (proof.scheme.family, proof.scheme.key_form, proof.scheme.encoding) == (family, form, encoding)
    assert isinstance(proof.result, Verified)
    assert proof.result.secret_number == 1
    assert isinstance(Verifier(proof.scheme, [HEX_SECRET]).verify(headers, BODY, NOW), Verified)


@pytest.mark.parametrize("label", ["sha256=", "v1=", "v1,", "hmac-sha256:"])
def test_a_label_before_the_signature_does_not_matter(label: str) -> None:
    headers = signed(Family.BODY, KEYS[KeyForm.SUFFIX], Encoding.BASE64, label=label)
    proof = detect_scheme(headers, BODY, secrets=[HEX_SECRET], now=NOW)
    assert proof is not None
    assert proof.scheme.signature_header == "x-acme-signature-256"


def test_of_several_that_fit_the_one_that_signs_most_is_found() -> None:
    strong = signed(Family.STANDARD_WEBHOOKS, KEYS[KeyForm.WHOLE], Encoding.BASE64)
    weak = signed(Family.BODY, KEYS[KeyForm.WHOLE], Encoding.HEX)
    proof = detect_scheme([*weak, *strong], BODY, secrets=[HEX_SECRET], now=NOW)
    assert proof is not None
    assert proof.scheme.family is Family.STANDARD_WEBHOOKS


@pytest.mark.parametrize(("late", "reason"), [(301, Reason.STALE_TIMESTAMP), (-301, Reason.FUTURE_TIMESTAMP)])
def test_a_right_signature_at_a_wrong_time_is_named_and_verifies_nothing(late: int, reason: Reason) -> None:
    headers = signed(Family.TIMESTAMPED, KEYS[KeyForm.WHOLE], Encoding.HEX)
    proof = detect_scheme(headers, BODY, secrets=[HEX_SECRET], now=NOW + timedelta(seconds=late))
    assert proof is not None
    assert proof.result == Refused(reason, -late)


def test_a_signature_that_no_secret_made_proves_nothing() -> None:
    headers = signed(Family.TIMESTAMPED, b"not our key", Encoding.HEX)
    assert detect_scheme(headers, BODY, secrets=[HEX_SECRET], now=NOW) is None
    assert detect_scheme(headers, BODY, secrets=[], now=NOW) is None
    assert detect_scheme([], BODY, secrets=[HEX_SECRET], now=NOW) is None


def test_what_was_signed_with_its_timestamp_cannot_be_sent_as_a_body_to_prove_a_scheme_without_one() -> None:
    mac = hmac.digest(KEYS[KeyForm.WHOLE], f"{UNIX}.".encode() + BODY, hashlib.sha256).hex()
    reused = f"{UNIX}.".encode() + BODY
    headers = [(b"x-acme-signature", mac.encode())]
    assert detect_scheme(headers, reused, secrets=[HEX_SECRET], now=NOW) is None


@pytest.mark.parametrize("signature", ["0" * 64, " ".join(["A" * 43] * 92), " ".join(["x"] * 2048)])
@pytest.mark.parametrize("value", [UNIX, "i" * 4000])
@pytest.mark.parametrize("body", [b"{}", b'{"id": "' + b"x" * 1_000_000 + b'"}', b"[" + b"{}," * 300_000 + b"1]"])
def test_a_contrived_delivery_costs_no_more_than_a_few_milliseconds(signature: str, value: str, body: bytes) -> None:
    names = [f"x{number}-{role}".encode() for number in range(4) for role in ("signature", "timestamp", "id")]
    headers = [(name, (signature if b"signature" in name else value).encode()) for name in names]
    seconds = []
    for _ in range(10):
        effort, began = Effort(), process_time()
        assert detect_with(headers, body, secrets=[HEX_SECRET] * 8, now=NOW, effort=effort) is None
        seconds.append(process_time() - began)
        assert effort.left >= 0
    assert min(seconds) < 0.05  # about 5 ms; 21 ms while branches are measured; the rest is for busy machines


def test_documented_header_names_are_tried_before_those_of_a_stranger() -> None:
    strange = [(f"a{number}-signature".encode(), b"0" * 64) for number in range(40)]
    mac = hmac.digest(KEYS[KeyForm.WHOLE], f"{UNIX}.".encode() + BODY, hashlib.sha256).hex()
    proof = detect_scheme(
        [*strange, (b"rivya-signature", f"t={UNIX},v1={mac}".encode())], BODY, secrets=[HEX_SECRET], now=NOW
    )
    assert proof is not None
    assert proof.has_documented_names


name = st.sampled_from([b"a-signature", b"b-signature-256", b"signature-timestamp", b"a-timestamp", b"a-id", b"x"])
value = st.one_of(st.binary(max_size=80), st.sampled_from([b"t=1,v1=" + b"0" * 64, b"A" * 43 + b"=", UNIX.encode()]))


@given(headers=st.lists(st.tuples(name, value), max_size=12), body=st.one_of(st.binary(), st.just(BODY)))
def test_no_bytes_raise_and_none_prove_anything(headers: Headers, body: Any) -> None:
    assert detect_scheme(headers, body, secrets=[HEX_SECRET], now=NOW) is None
