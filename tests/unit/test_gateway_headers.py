"""Which headers travel: what the next hop needs, never a token, a cookie or a hop's own."""

import pytest

from app.gateway.headers import request_headers, response_headers, value_of

Pairs = list[tuple[bytes, bytes]]


ONWARD = [
    *("accept", "accept-language", "content-type", "content-length", "idempotency-key", "last-event-id", "user-agent"),
    *("x-request-id", "traceparent", "tracestate"),
]
BACK = [
    *("content-type", "content-length", "content-disposition", "retry-after", "age", "etag", "last-modified"),
    *("ratelimit", "ratelimit-policy", "x-ratelimit-remaining", "x-rate-limit-reset"),
]
NEITHER = [
    *("authorization", "cookie", "set-cookie", "host", "connection", "keep-alive", "te", "trailer", "upgrade"),
    *("transfer-encoding", "proxy-authorization", "expect", "accept-encoding", "content-encoding", "forwarded", "via"),
    *("x-forwarded-for", "x-real-ip", "x-api-key", "rivya-version", "server", "location", "link", "anything"),
]


@pytest.mark.parametrize("name", [*NEITHER, "etag", "retry-after"])
def test_what_rivya_does_not_need_goes_no_further(name: str) -> None:
    assert request_headers([(name.encode(), b"x"), (b"accept", b"*/*")]) == [(b"accept", b"*/*")]


@pytest.mark.parametrize("name", ONWARD)
def test_what_is_meant_for_rivya_goes_on_unchanged(name: str) -> None:
    assert request_headers([(name.encode(), b"X y")]) == [(name.encode(), b"X y")]


@pytest.mark.parametrize("name", [*NEITHER, "idempotency-key", "user-agent"])
def test_what_the_caller_does_not_need_stays_with_us(name: str) -> None:
    assert response_headers([(name.title().encode(), b"x"), (b"ETag", b'"1"')], status=200) == [(b"etag", b'"1"')]


@pytest.mark.parametrize("name", BACK)
def test_what_is_meant_for_the_caller_comes_back_unchanged(name: str) -> None:
    assert response_headers([(name.title().encode(), b"X y")], status=200) == [(name.encode(), b"X y")]


def test_a_header_that_connection_names_goes_no_further_in_either_direction() -> None:
    given: Pairs = [(b"connection", b"close, Content-Type"), (b"content-type", b"1"), (b"content-length", b"2")]
    assert request_headers(given) == response_headers(given, status=200) == [(b"content-length", b"2")]


def test_rivyas_request_id_comes_back_under_a_name_of_its_own() -> None:
    assert response_headers([(b"X-Request-Id", b"req_1")], status=200) == [(b"x-rivya-request-id", b"req_1")]


def test_repeated_headers_stay_repeated() -> None:
    given: Pairs = [(b"content-type", b"a"), (b"content-type", b"b")]
    assert request_headers(given) == response_headers(given, status=200) == given


def test_the_length_is_that_of_the_body_once_it_is_known() -> None:
    given: Pairs = [(b"Content-Length", b"9")]
    assert response_headers(given, status=200) == [(b"content-length", b"9")]
    assert response_headers(given, status=200, length=4) == [(b"content-length", b"4")]


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_has_no_length(status: int) -> None:
    assert response_headers([(b"Content-Length", b"9")], status=status, length=0) == []


def test_a_value_is_found_by_its_name() -> None:
    assert value_of([(b"a", b"1"), (b"b", b"2"), (b"b", b"3")], b"b") == "2"
    assert value_of([], b"b") is None
