"""What a caller is told whose key was answered before, and whose answer is no longer kept."""

import orjson
import pytest

from app.submission.models import expired


@pytest.mark.parametrize(("generation_id", "expected"), [("task_1", "task_1"), (None, "refused")])
def test_an_expired_key_tells_what_became_of_its_create(generation_id: str | None, expected: str) -> None:
    answer = expired(generation_id, request_id="req_1")
    error = orjson.loads(answer.body)["error"]
    assert (answer.status, error["code"], error["requestId"]) == (410, "idempotency_key_expired", "req_1")
    assert expected in error["message"]
    assert not answer.is_replay
