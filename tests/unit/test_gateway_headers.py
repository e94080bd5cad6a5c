"""Which headers travel: what the next hop needs, never a token, a cookie or a hop's own."""

import pytest

from app.gateway.headers import back, declared_length, onward, value_of

Pairs = list[tuple[bytes, bytes]]


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "cookie",
        "host",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "proxy-authorization",
        "expect",
        "accept-encoding",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-anything",
        "x-real-ip",
        "x-request-id",
    ],
)
def test_what_is_between_the_caller_and_us_goes_no_further(name: str) -> None:
    assert onward([(name.encode(), b"x"), (b"accept", b"*/*")]) == [(b"accept", b"*/*")]


@pytest.mark.parametrize("name", ["idempotency-key", "content-type", "content-length", "user-agent", "rivya-version"])
def test_what_is_meant_for_rivya_goes_on_unchanged(name: str) -> None:
    assert onward([(name.encode(), b"X y")]) == [(name.encode(), b"X y")]


def test_a_header_that_connection_names_goes_no_further_in_either_direction() -> None:
    given: Pairs = [(b"connection", b"close, X-Secret"), (b"x-secret", b"1"), (b"x-other", b"2")]
    assert onward(given) == back(given) == [(b"x-other", b"2")]


def test_rivyas_cookies_server_and_transfer_stay_with_us() -> None:
    given: Pairs = [(b"Set-Cookie", b"a=b"), (b"Server", b"x"), (b"Transfer-Encoding", b"chunked"), (b"ETag", b'"1"')]
    assert back(given) == [(b"etag", b'"1"')]


def test_rivyas_request_id_comes_back_under_a_name_of_its_own() -> None:
    assert back([(b"X-Request-Id", b"req_1")]) == [(b"x-rivya-request-id", b"req_1")]


def test_repeated_headers_stay_repeated() -> None:
    given: Pairs = [(b"vary", b"a"), (b"vary", b"b")]
    assert onward(given) == back(given) == given


def test_a_value_is_found_by_its_name() -> None:
    assert value_of([(b"a", b"1"), (b"b", b"2"), (b"b", b"3")], b"b") == "2"
    assert value_of([], b"b") is None


@pytest.mark.parametrize(("text", "length"), [(b"12", 12), (b"", None), (b"-1", None), (b"1e3", None)])
def test_a_declared_length_is_a_plain_number(text: bytes, length: int | None) -> None:
    assert declared_length([(b"content-length", text)]) == length
