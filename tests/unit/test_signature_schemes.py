"""The setting that picks a signature scheme, and the key forms."""

import base64

import pytest

from app.rivya.schemes import (
    RULES,
    Encoding,
    Family,
    KeyForm,
    Scheme,
    SchemeInvalid,
    decode_base64,
    derive_key,
    parse_scheme,
    wanted_scheme,
)


def test_a_family_alone_has_defaults_for_the_rest() -> None:
    assert parse_scheme("timestamped") == Scheme(
        Family.TIMESTAMPED, "rivya-signature", None, None, Encoding.ANY, KeyForm.WHOLE
    )


@pytest.mark.parametrize("setting", ["auto", " AUTO ", "auto;"])
def test_auto_names_no_scheme(setting: str) -> None:
    assert wanted_scheme(setting) is None


def test_any_other_setting_names_its_scheme() -> None:
    assert wanted_scheme("body") == parse_scheme("body")
    with pytest.raises(SchemeInvalid, match="use auto"):
        wanted_scheme("auto;key=whole")


def test_every_option_of_the_setting_is_honoured_in_any_order_and_case() -> None:
    text = "Timestamp-Header; key=suffix; Encoding=HEX ;timestamp=X-T;signature=X-S;"
    assert parse_scheme(text) == Scheme(Family.TIMESTAMP_HEADER, "x-s", "x-t", None, Encoding.HEX, KeyForm.SUFFIX)


def test_a_prefix_names_all_three_headers_of_standard_webhooks() -> None:
    scheme = parse_scheme("standard-webhooks;prefix=svix-")
    assert (scheme.id_header, scheme.timestamp_header, scheme.signature_header) == (
        "svix-id",
        "svix-timestamp",
        "svix-signature",
    )


def test_a_header_named_on_its_own_overrides_the_prefix() -> None:
    scheme = parse_scheme("standard-webhooks;prefix=svix-;id=X-Id")
    assert (scheme.id_header, scheme.timestamp_header) == ("x-id", "svix-timestamp")


def test_standard_webhooks_decode_the_secret_unless_told_otherwise() -> None:
    assert parse_scheme("standard-webhooks").key_form is KeyForm.BASE64
    assert parse_scheme("standard-webhooks;key=whole").key_form is KeyForm.WHOLE


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("key_form", KeyForm)
def test_the_text_of_a_scheme_names_the_same_scheme(family: Family, encoding: Encoding, key_form: KeyForm) -> None:
    headers = {option: f"x-{option}" for option in RULES[family].headers}
    scheme = Scheme(family, headers["signature"], headers.get("timestamp"), headers.get("id"), encoding, key_form)
    assert parse_scheme(str(scheme)) == scheme


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "use auto (alone), timestamped"),
        ("stripe", "use auto (alone), timestamped"),
        ("auto;key=whole", "use auto (alone), timestamped"),
        ("body;timestamp=X-T", "use signature, encoding or key"),
        ("body;prefix=webhook-", "use signature, encoding or key"),
        ("body;signature", "each as option=value"),
        ("body;key=whole;key=hex", "give it once"),
        ("body;key=base32", "use whole, suffix, base64 or hex"),
        ("body;encoding=base32", "use any, hex or base64"),
        ("body;signature=X Y", "use letters, digits and dashes"),
        ("body;signature=X-Sïgnature", "use letters, digits and dashes"),
        ("timestamp-header;signature=X;timestamp=x", "give each its own"),
    ],
)
def test_a_bad_setting_is_refused_with_what_would_be_right(text: str, advice: str) -> None:
    with pytest.raises(SchemeInvalid) as refusal:
        parse_scheme(text)
    assert advice in str(refusal.value)


KEY = bytes(range(250, 256)) + b"key"


@pytest.mark.parametrize(
    ("secret", "form", "key"),
    [
        ("whsec_abc", KeyForm.WHOLE, b"whsec_abc"),
        ("whsec_abc", KeyForm.SUFFIX, b"abc"),
        ("abc", KeyForm.SUFFIX, b"abc"),
        ("whsec_" + base64.b64encode(KEY).decode(), KeyForm.BASE64, KEY),
        ("whsec_" + base64.urlsafe_b64encode(KEY).decode().rstrip("="), KeyForm.BASE64, KEY),
        ("whsec_" + KEY.hex().upper(), KeyForm.HEX, KEY),
        ("whsec_not base64", KeyForm.BASE64, None),
        ("whsec_not hex", KeyForm.HEX, None),
        ("whsec_", KeyForm.SUFFIX, None),
        ("whsec_", KeyForm.HEX, None),
        ("", KeyForm.WHOLE, None),
        ("\ud800", KeyForm.WHOLE, None),
    ],
)
def test_a_secret_becomes_a_key_in_four_ways_or_none(secret: str, form: KeyForm, key: bytes | None) -> None:
    assert derive_key(secret, form) == key


def test_a_text_of_impossible_length_is_no_base64() -> None:
    assert decode_base64(b"a") is None


def test_an_option_without_a_value_is_refused() -> None:
    with pytest.raises(SchemeInvalid, match="option signature is empty"):
        parse_scheme("body;signature=")
