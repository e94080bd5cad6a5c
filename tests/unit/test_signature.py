"""Verifying deliveries: what is accepted, what is refused, and under which name."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest

from app.rivya.schemes import parse_scheme
from app.rivya.signature import TOLERANCE, Reason, Refused, Verified, Verifier, sign

NOW = datetime(2026, 5, 11, 12, 0, tzinfo=UTC)
STAMP = str(int(NOW.timestamp()))
SECRET = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cw=="
BODY = b'{"id":"evt_1","type":"generation.succeeded"}'
SECOND = timedelta(seconds=1)

Headers = list[tuple[bytes, bytes]]


def verifier(scheme: str = "timestamped", *secrets: str) -> Verifier:
    return Verifier(parse_scheme(scheme), secrets or [SECRET])


def signed(scheme: str = "timestamped", *, secret: str = SECRET, timestamp: datetime | str = NOW) -> Headers:
    headers = sign(parse_scheme(scheme), secret, BODY, timestamp=timestamp, event_id="msg_1")
    return [(name.encode(), value.encode()) for name, value in headers]


def reason(outcome: Verified | Refused) -> Reason:
    assert isinstance(outcome, Refused)
    return outcome.reason


def mac(signed_bytes: bytes) -> bytes:
    return hmac.digest(SECRET.encode(), signed_bytes, hashlib.sha256).hex().encode()


def header(*values: bytes) -> Headers:
    return [(b"rivya-signature", value) for value in values]


def test_the_timestamped_family_signs_the_time_a_dot_and_the_body() -> None:
    headers = header(b"t=" + STAMP.encode() + b",v1=" + mac(STAMP.encode() + b"." + BODY))
    assert verifier().verify(headers, BODY, NOW) == Verified(0, None, 0.0)


def test_standard_webhooks_tell_the_signed_event_id() -> None:
    """The vector is the one in the specification's own examples."""
    scheme = parse_scheme("standard-webhooks")
    headers = [
        (b"webhook-id", b"msg_p5jXN8AQM9LWM0D4loKWxJek"),
        (b"webhook-timestamp", b"1614265330"),
        (b"webhook-signature", b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ]
    outcome = Verifier(scheme, ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]).verify(
        headers, b'{"test": 2432232314}', datetime.fromtimestamp(1614265330, UTC)
    )
    assert outcome == Verified(0, "msg_p5jXN8AQM9LWM0D4loKWxJek", 0.0)


def test_the_body_family_verifies_githubs_documented_example() -> None:
    headers = [(b"x-hub-signature-256", b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")]
    outcome = Verifier(parse_scheme("body;signature=X-Hub-Signature-256"), ["It's a Secret to Everybody"]).verify(
        headers, b"Hello, World!", NOW
    )
    assert outcome == Verified(0)


def test_every_current_secret_is_tried_and_the_fitting_one_named() -> None:
    assert verifier("timestamped", "whsec_new", SECRET).verify(signed(), BODY, NOW) == Verified(1, None, 0.0)


def test_a_secret_that_has_no_such_key_leaves_the_others_their_places() -> None:
    both = verifier("body;key=hex", "whsec_not hex", "whsec_abcd")
    assert both.usable_secrets == 1
    assert both.verify(signed("body;key=hex", secret="whsec_abcd"), BODY, NOW) == Verified(1)


def test_without_a_usable_secret_everything_is_refused() -> None:
    assert reason(Verifier(parse_scheme("timestamped"), []).verify(signed(), BODY, NOW)) is Reason.NO_SECRET
    assert reason(verifier("timestamped", "").verify([], BODY, NOW)) is Reason.NO_SECRET


def test_signing_with_a_secret_that_has_no_such_key_says_so() -> None:
    with pytest.raises(ValueError, match="no key of the form hex"):
        sign(parse_scheme("body;key=hex"), "whsec_xyz", BODY, timestamp=NOW, event_id="")


@pytest.mark.parametrize("offset", [-TOLERANCE, TOLERANCE, SECOND * 0])
def test_a_timestamp_within_the_tolerance_is_accepted(offset: timedelta) -> None:
    outcome = verifier().verify(signed(timestamp=NOW + offset), BODY, NOW)
    assert outcome == Verified(0, None, offset.total_seconds())


@pytest.mark.parametrize(
    ("offset", "name"),
    [(-TOLERANCE - SECOND, Reason.STALE_TIMESTAMP), (TOLERANCE + SECOND, Reason.FUTURE_TIMESTAMP)],
)
def test_a_right_signature_out_of_time_is_named_so_with_its_offset(offset: timedelta, name: Reason) -> None:
    outcome = verifier().verify(signed(timestamp=NOW + offset), BODY, NOW)
    assert outcome == Refused(name, offset.total_seconds())


def test_a_wrong_signature_out_of_time_is_only_a_mismatch() -> None:
    """A forger must not learn our clock; the operator sees the claimed offset."""
    headers = signed(secret="whsec_wrong", timestamp=NOW - timedelta(days=1))
    assert verifier().verify(headers, BODY, NOW) == Refused(Reason.SIGNATURE_MISMATCH, -86400.0)


@pytest.mark.parametrize("notation", [STAMP, STAMP + "000", STAMP + ".0", NOW.isoformat(), "2026-05-11T12:00:00.000Z"])
def test_a_timestamp_may_be_in_seconds_milliseconds_or_iso(notation: str) -> None:
    headers = signed("timestamp-header", timestamp=notation)
    assert verifier("timestamp-header").verify(headers, BODY, NOW) == Verified(0, None, 0.0)


@pytest.mark.parametrize("notation", ["-1", "9" * 15, "9" * 400, "soon", "1e9", "2026-13-01", "0001-01-01", "٣" * 10])
def test_an_absurd_timestamp_is_malformed(notation: str) -> None:
    headers = signed("timestamp-header", timestamp=notation)
    assert reason(verifier("timestamp-header").verify(headers, BODY, NOW)) is Reason.MALFORMED_SIGNATURE


def test_no_signature_header_is_missing_whatever_else_is_there() -> None:
    headers = [(b"rivya-signatur", b"t=1"), (b"host", b"example")]
    assert reason(verifier().verify(headers, BODY, NOW)) is Reason.MISSING_SIGNATURE


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b"t=1"],
        [b"v1=" + b"0" * 64],
        [b"t=,v1=" + b"0" * 64],
        [b"t=1,t=2,v1=" + b"0" * 64],
        [b"t=1,v1=" + b"0" * 63],
        [b"t=1,v1=" + b"g" * 64],
        [b"t=1,v1=" + b"0" * 64 + b"," * 4096],
        [b"t=1,v1=" + b"0" * 64, b"t=2,v1=" + b"0" * 64],
        [b"\x00\xff"],
    ],
)
def test_a_header_that_offers_no_signature_with_one_time_is_malformed(values: list[bytes]) -> None:
    assert reason(verifier().verify(header(*values), BODY, NOW)) is Reason.MALFORMED_SIGNATURE


@pytest.mark.parametrize("absent", [b"webhook-id", b"webhook-timestamp"])
def test_a_signed_header_that_is_absent_or_given_twice_is_malformed(absent: bytes) -> None:
    headers = signed("standard-webhooks")
    without = [pair for pair in headers if pair[0] != absent]
    assert reason(verifier("standard-webhooks").verify(without, BODY, NOW)) is Reason.MALFORMED_SIGNATURE
    twice = [*headers, (absent, b"1")]
    assert reason(verifier("standard-webhooks").verify(twice, BODY, NOW)) is Reason.MALFORMED_SIGNATURE


@pytest.mark.parametrize("scheme", ["timestamped", "standard-webhooks", "timestamp-header", "body"])
def test_one_good_signature_among_several_headers_is_enough(scheme: str) -> None:
    """While a secret is rotated, a sender signs with both."""
    other = signed(scheme, secret="whsec_b3RoZXI=")
    good = signed(scheme)
    name = parse_scheme(scheme).signature_header.encode()
    headers = [*other, *(pair for pair in good if pair[0] == name)]
    assert isinstance(verifier(scheme).verify(headers, BODY, NOW), Verified)


def test_no_more_than_sixteen_signatures_are_compared() -> None:
    good = mac(BODY)
    wrong = [b"0" * 64] * 16
    assert isinstance(
        verifier("body").verify([(b"x-rivya-signature", b" ".join([*wrong[1:], good]))], BODY, NOW), Verified
    )
    refused = verifier("body").verify([(b"x-rivya-signature", b" ".join([*wrong, good]))], BODY, NOW)
    assert reason(refused) is Reason.SIGNATURE_MISMATCH


@pytest.mark.parametrize("label", [b"", b"sha256=", b"v1=", b"v1,", b"hmac-sha256:", b"sig="])
def test_a_signature_may_carry_any_of_the_usual_labels(label: bytes) -> None:
    headers = [(b"x-rivya-signature", label + mac(BODY).upper())]
    assert verifier("body").verify(headers, BODY, NOW) == Verified(0)


def test_an_encoding_that_was_asked_for_excludes_the_other() -> None:
    for asked, written in (("hex", "base64"), ("base64", "hex")):
        headers = signed(f"body;encoding={written}")
        assert reason(verifier(f"body;encoding={asked}").verify(headers, BODY, NOW)) is Reason.MALFORMED_SIGNATURE
