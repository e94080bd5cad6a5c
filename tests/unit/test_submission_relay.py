"""Rivya's refusals reach the caller as they are, whatever else is in them."""

import orjson

from app.rivya.errors import RivyaRateLimited, RivyaRefused
from app.submission.models import whole_seconds
from app.submission.outcome import relayed


def relayed_error(body: bytes, **given: str) -> dict[str, object]:
    error = RivyaRefused(400, "validation_failed", given.get("message"), request_id=given.get("request_id"), body=body)
    relayed_body: dict[str, object] = orjson.loads(relayed(error, request_id="req_ours").body)["error"]
    return relayed_body


def test_members_that_rivya_adds_reach_the_caller() -> None:
    body = b'{"error": {"code": "validation_failed", "message": "m", "requestId": "req_1", "param": "prompt"}}'
    relayed_body = relayed_error(body, message="m", request_id="req_1")
    assert relayed_body == {"code": "validation_failed", "message": "m", "requestId": "req_1", "param": "prompt"}


def test_a_body_that_is_not_rivyas_is_put_into_its_shape() -> None:
    error = RivyaRateLimited(429, "rate_limited", retry_after=1.1, body=b"<html>Too many requests</html>")
    reply = relayed(error, request_id="req_ours")
    relayed_body = orjson.loads(reply.body)["error"]
    assert (relayed_body["code"], relayed_body["requestId"], reply.retry_after) == ("rate_limited", "req_ours", 2)


def test_a_json_body_of_another_shape_is_put_into_rivyas() -> None:
    for body in (b"[]", b'{"error": "no"}', b"{}"):
        assert set(relayed_error(body)) == {"code", "message", "requestId"}


def test_an_enormous_body_is_not_relayed() -> None:
    body = orjson.dumps({"error": {"code": "validation_failed", "message": "m", "more": "x" * 100_000}})
    assert "more" not in relayed_error(body, message="m")


def test_a_body_nested_deeper_than_json_can_be_written_is_cut() -> None:
    nested = b'{"error": {"code": "validation_failed", "more": ' + b"[" * 500 + b"]" * 500 + b"}}"
    assert relayed_error(nested)["code"] == "validation_failed"


def test_a_wait_is_told_in_whole_seconds_never_shortened() -> None:
    assert (whole_seconds(None), whole_seconds(0.2), whole_seconds(3)) == (None, 1, 3)
