"""The sandbox signs in every family and key form; each signature is computed here a second time, by hand."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Literal

import pytest

from app.sandbox.signing import KeyForm, Message, Scheme, sign
from tests.support.sandbox_harness import standard_webhooks

_SUFFIX = "00112233445566778899aabbccddeeff"
_SECRET = f"whsec_{_SUFFIX}"
_OLDER = "whsec_ffeeddccbbaa99887766554433221100"
_MESSAGE = Message("evt_1", datetime(2026, 5, 11, 12, 0, 0, 999_000, tzinfo=UTC), b'{"id":"evt_1"}')
_UNIX = "1778500800"
_KEYS: dict[KeyForm, bytes] = {
    "whole": _SECRET.encode(),
    "suffix": _SUFFIX.encode(),
    "base64": base64.b64decode(_SUFFIX),
    "hex": bytes.fromhex(_SUFFIX),
}


def _hex(key: bytes, signed: bytes) -> str:
    return hmac.new(key, signed, hashlib.sha256).hexdigest()


def _base64(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


@pytest.mark.parametrize("form", ["whole", "suffix", "base64", "hex"])
def test_the_timestamped_family_signs_time_and_body_with_every_key_form(form: KeyForm) -> None:
    headers = sign(Scheme(key_form=form), [_SECRET], _MESSAGE)
    expected = _hex(_KEYS[form], f"{_UNIX}.".encode() + _MESSAGE.body)
    assert headers == {"Rivya-Signature": f"t={_UNIX},v1={expected}"}


def test_standard_webhooks_signs_id_time_and_body_in_base64() -> None:
    headers = sign(standard_webhooks(), [_SECRET], _MESSAGE)
    expected = _base64(_KEYS["base64"], f"evt_1.{_UNIX}.".encode() + _MESSAGE.body)
    assert headers == {
        "webhook-id": "evt_1",
        "webhook-timestamp": _UNIX,
        "webhook-signature": f"v1,{expected}",
    }


def test_standard_webhooks_takes_another_prefix() -> None:
    assert set(sign(standard_webhooks("svix-"), [_SECRET], _MESSAGE)) == {
        "svix-id",
        "svix-timestamp",
        "svix-signature",
    }


@pytest.mark.parametrize("prefix", ["", "sha256=", "v1="])
def test_a_separate_timestamp_header_is_part_of_what_is_signed(prefix: str) -> None:
    scheme = Scheme(family="separate", signature_header="X-Sig", timestamp_header="X-Time", prefix=prefix)
    expected = _hex(_KEYS["whole"], f"{_UNIX}.".encode() + _MESSAGE.body)
    assert sign(scheme, [_SECRET], _MESSAGE) == {"X-Sig": prefix + expected, "X-Time": _UNIX}


def test_a_separate_timestamp_can_be_written_as_iso() -> None:
    headers = sign(Scheme(family="separate", timestamp_format="iso"), [_SECRET], _MESSAGE)
    expected = _hex(_KEYS["whole"], b"2026-05-11T12:00:00Z." + _MESSAGE.body)
    assert headers == {"Rivya-Signature": expected, "Rivya-Timestamp": "2026-05-11T12:00:00Z"}


@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_the_body_family_signs_the_body_alone(encoding: Literal["hex", "base64"]) -> None:
    scheme = Scheme(family="body", signature_header="X-Signature-256", prefix="sha256=", encoding=encoding)
    expected = (_hex if encoding == "hex" else _base64)(_KEYS["whole"], _MESSAGE.body)
    assert sign(scheme, [_SECRET], _MESSAGE) == {"X-Signature-256": f"sha256={expected}"}


def test_two_secrets_sign_both_where_the_header_can_carry_it() -> None:
    signed = f"{_UNIX}.".encode() + _MESSAGE.body
    first, second = _hex(_SECRET.encode(), signed), _hex(_OLDER.encode(), signed)
    headers = sign(Scheme(), [_SECRET, _OLDER], _MESSAGE)
    assert headers == {"Rivya-Signature": f"t={_UNIX},v1={first},v1={second}"}
    assert sign(standard_webhooks(), [_SECRET, _OLDER], _MESSAGE)["webhook-signature"].count("v1,") == 2


def test_two_secrets_sign_with_the_first_where_the_header_holds_one_value() -> None:
    scheme = Scheme(family="body")
    assert sign(scheme, [_SECRET, _OLDER], _MESSAGE) == sign(scheme, [_SECRET], _MESSAGE)
