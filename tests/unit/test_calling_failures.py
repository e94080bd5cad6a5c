"""A failed call says what the receiver said, and whether asking again makes sense."""

import pytest

from app.cli.client.http import local_failure, response_failure

BODY = b'{"error": {"code": "not_found", "message": "No such thing.", "requestId": "req_1"}, "more": 1}'


def test_a_refusal_is_told_with_its_code_and_request_id() -> None:
    failure = response_failure(404, BODY, retry_after=None)
    assert str(failure) == "not_found: No such thing. (HTTP 404, request req_1)"
    assert failure.document == {"error": {"code": "not_found", "message": "No such thing.", "requestId": "req_1"}}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "x"}', b'{"error": {"code": 7}}'])
def test_an_answer_without_a_known_error_is_one_all_the_same(body: bytes) -> None:
    failure = response_failure(502, body, retry_after="soon")
    assert failure.document["error"]["code"] == "unexpected_answer"
    assert (failure.status, failure.retry_after, failure.may_pass) == (502, None, True)


def test_an_error_without_a_message_is_told_by_its_code() -> None:
    assert str(response_failure(400, b'{"error": {"code": "odd"}}', retry_after=None)).startswith("odd: no message")


@pytest.mark.parametrize(("status", "may_pass"), [(400, False), (404, False), (429, True), (500, True), (503, True)])
def test_only_what_may_pass_is_worth_asking_again(status: int, may_pass: bool) -> None:
    assert response_failure(status, BODY, retry_after="7").may_pass is may_pass
    assert response_failure(status, BODY, retry_after="7").retry_after == 7
    assert local_failure("no_answer", "…").may_pass
