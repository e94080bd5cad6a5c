"""Every answer that isn't 2xx becomes the error it stands for."""

from decimal import Decimal

import orjson
import pytest

from app.rivya.errors import (
    RivyaError,
    RivyaForbidden,
    RivyaNotFound,
    RivyaRateLimited,
    RivyaRefused,
    RivyaUnauthorized,
    RivyaUnavailable,
    RivyaUnreadable,
    read_error,
    read_retry_after,
)
from app.rivya.payloads import PayloadUnreadable, read_credits, read_models

DATE = "Mon, 11 May 2026 12:00:00 GMT"


def shaped(code: object, message: object = "No.") -> bytes:
    return orjson.dumps({"error": {"code": code, "message": message, "requestId": "req_1"}})


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "validation_failed", RivyaRefused),
        (401, "api_key_revoked", RivyaUnauthorized),
        (402, "insufficient_credits", RivyaRefused),
        (403, "api_scope_denied", RivyaForbidden),
        (404, "not_found", RivyaNotFound),
        (409, "idempotency_conflict", RivyaRefused),
        (418, "a_new_code", RivyaRefused),
        (429, "rate_limited", RivyaRateLimited),
    ],
)
def test_a_clear_refusal_keeps_its_code_message_request_id_and_body(
    status: int, code: str, kind: type[RivyaRefused]
) -> None:
    error = read_error(status, shaped(code), {})
    assert type(error) is kind
    assert isinstance(error, RivyaRefused)
    assert (error.status, error.code, error.message, error.request_id) == (status, code, "No.", "req_1")
    assert error.body == shaped(code)


def test_a_rate_limit_is_one_whoever_enforces_it() -> None:
    error = read_error(429, b"<html>slow down", {"retry-after": "7"})
    assert isinstance(error, RivyaRateLimited)
    assert (error.code, error.retry_after) == ("rate_limited", 7.0)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_error_says_nothing_about_the_request_even_in_rivyas_shape(status: int) -> None:
    error = read_error(status, shaped("public_api_disabled"), {"retry-after": "3"})
    assert isinstance(error, RivyaUnavailable)
    assert (error.sent, error.status, error.code, error.retry_after) == (True, status, "public_api_disabled", 3.0)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<html>Not here"),
        (401, b""),
        (400, b"[]"),
        (400, b'{"error":"bad"}'),
        (400, shaped(7)),
        (400, shaped("")),
        (302, shaped("moved")),
        (101, b""),
    ],
)
def test_an_answer_that_is_not_rivyas_is_no_refusal(status: int, body: bytes) -> None:
    error = read_error(status, body, {})
    assert isinstance(error, RivyaUnavailable)
    assert error.status == status


def test_a_request_id_may_come_in_a_header() -> None:
    error = read_error(503, b"", {"x-request-id": "req_2"})
    assert isinstance(error, RivyaUnavailable)
    assert error.request_id == "req_2"


def test_a_message_is_cut_to_length_and_can_be_stored() -> None:
    error = read_error(400, shaped("validation_failed", "\x00" + "x" * 10_000), {})
    assert isinstance(error, RivyaRefused)
    assert error.message is not None
    assert error.message.startswith("\ufffdx")
    assert len(error.message) == 500


def test_neither_message_nor_body_shows_in_the_text_of_an_error() -> None:
    error = read_error(400, shaped("validation_failed", "prompt: my secret"), {})
    assert "secret" not in str(error) + repr(error)
    assert str(error) == "Rivya answered 400 validation_failed (request req_1)"


def test_every_error_is_a_rivya_error() -> None:
    assert issubclass(RivyaRefused, RivyaError)
    assert issubclass(RivyaUnavailable, RivyaError)
    assert RivyaUnreadable("x", status=200).status == 200


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 12 ", 12.0),
        ("1.5", 1.5),
        ("99999", 3600.0),
        ("Mon, 11 May 2026 12:00:30 GMT", 30.0),
        ("Mon, 11 May 2026 11:00:00 GMT", 0.0),
        ("Tue, 12 May 2026 12:00:00 GMT", 3600.0),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("nan", None),
        ("9" * 400, None),
        ("Mon, 11 May 2026 12:00:30", None),
        ("Mon, 99 May 99999999999 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_an_hour_at_most(value: str, seconds: float | None) -> None:
    assert read_retry_after({"retry-after": value, "date": DATE}) == seconds


def test_a_date_counts_from_the_answers_own_clock_only() -> None:
    assert read_retry_after({"retry-after": DATE}) is None
    assert read_retry_after({}) is None


def test_models_tell_their_categories() -> None:
    items = [{"id": "z-image", "category": "image"}, {"id": "no-category"}, 7, {"category": "video"}]
    assert read_models(orjson.dumps({"object": "list", "data": items})) == {"z-image": "image"}


def test_models_that_cannot_be_read_are_unknown() -> None:
    with pytest.raises(PayloadUnreadable):
        read_models(b'{"data":{}}')


def test_credits_are_exact() -> None:
    assert read_credits(b'{"current_credits":123.45}') == Decimal("123.45")


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"current_credits":"123"}', b'{"current_credits":1e99}'])
def test_credits_that_cannot_be_read_are_unknown(body: bytes) -> None:
    with pytest.raises(PayloadUnreadable):
        read_credits(body)
