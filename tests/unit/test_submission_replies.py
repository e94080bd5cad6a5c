"""A caller whose create could not be finished is told so, and how to repeat it without paying twice."""

import orjson
import pytest

from app.submission.models import (
    Reply,
    conflict,
    database_unavailable,
    not_recorded,
    unknown,
    unreachable,
)


def error_of(reply: Reply) -> dict[str, str]:
    error: dict[str, str] = orjson.loads(reply.body)["error"]
    return error


@pytest.mark.parametrize(
    "reply",
    [
        unknown("order-1", request_id="req_1"),
        not_recorded("order-1", request_id="req_1"),
        database_unavailable("order-1", request_id="req_1"),
    ],
)
def test_where_a_create_may_have_been_paid_the_caller_is_told_the_key_to_repeat_it_with(reply: Reply) -> None:
    error = error_of(reply)
    assert "(order-1)" in error["message"]
    assert error["requestId"] == "req_1"


def test_a_key_used_with_another_body_is_a_conflict_that_no_wait_resolves() -> None:
    reply = conflict(request_id="req_1")
    assert (reply.status, error_of(reply)["code"], reply.retry_after) == (409, "idempotency_conflict", None)


@pytest.mark.parametrize(("asked", "expected"), [(None, 5), (0.2, 5), (7.2, 8)])
def test_a_wait_is_told_in_whole_seconds_and_never_shorter_than_asked(asked: float | None, expected: int) -> None:
    assert unreachable(request_id="req_1", retry_after=asked).retry_after == expected
