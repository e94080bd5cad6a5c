"""POST /api/v1/generations: forwarded as it came, recorded, answered as Rivya did, and never sent twice."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from app.ledger.tables import transitions
from app.sandbox.faults import ApiFault
from tests.support.submission_harness import BODY, SubmissionHarness, code_of, open_submission, serve_manually


def fault(room: SubmissionHarness, given: ApiFault) -> None:
    given.times = 1
    room.sandbox.faults.api = [given]


async def test_a_create_is_recorded_and_answered_with_rivyas_object_and_status(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        room.sandbox.settings.create_status = 202
        answer = await room.create()
        assert (answer.status_code, answer.headers["Idempotency-Key"]) == (202, "key-1")
        assert "Idempotency-Replayed" not in answer.headers
        body = answer.json()
        assert (body["status"], body["model"], body["reserved_credits"]) == ("queued", "z-image", 1)
        assert (body["tracking"]["client_request_id"], body["tracking"]["state"]) == ("order-1", "watching")
        generation = await room.generation()
        assert (generation["id"], generation["client_request_id"]) == (body["id"], "order-1")
        [step] = await room.room.rows(transitions)
        assert (step["to_status"], step["source"]) == ("queued", "submit")
        stored = await room.submission()
        assert (stored["state"], stored["is_final"], stored["generation_id"]) == ("accepted", 1, body["id"])
        assert (stored["submitted_by"], stored["request"], stored["attempts"]) == ("shop", BODY, 1)


async def test_metadata_of_a_create_is_stored_with_the_generation_and_not_sent(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        body = BODY.rstrip()[:-1] + b',"metadata":{"order":7}}'
        first, again = await room.create(body), await room.create(body)
        assert (first.status_code, first.json()["metadata"]) == (200, {"order": 7})
        assert (again.content, room.calls) == (first.content, 1)
        assert (await room.generation())["metadata"] == '{"order":7}'
        refused = await room.create(body.replace(b'{"order":7}', b"[7]"), key="key-2")
        assert (refused.status_code, code_of(refused), room.calls) == (400, "validation_failed", 1)


async def test_a_key_is_made_for_who_sends_none(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        key = (await room.create(key=None)).headers["Idempotency-Key"]
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", key)
        assert room.charged(key) == 1


async def test_the_same_create_again_gets_the_same_bytes_without_calling_rivya(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        first = await room.create()
        await room.sandbox.settle(first.json()["id"])
        again = await room.create()
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert (room.calls, room.charged()) == (1, 1)


async def test_the_same_key_with_another_body_is_a_conflict_without_calling_rivya(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        await room.create()
        answer = await room.create(BODY.replace(b"lighthouse", b"harbour"))
        assert (answer.status_code, code_of(answer), room.calls) == (409, "idempotency_conflict", 1)


async def test_rivyas_refusal_is_passed_on_and_given_again(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        body = b'{"model": "no-such-model"}'
        first, again = await room.create(body), await room.create(body)
        assert (first.status_code, code_of(first)) == (400, "validation_failed")
        assert first.json()["error"]["requestId"].startswith("req_")
        assert (again.status_code, again.content) == (400, first.content)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert (room.calls, (await room.submission())["state"]) == (1, "rejected")


@pytest.mark.parametrize(
    ("given", "status", "code", "wait"),
    [
        (ApiFault(status=429, retry_after="7"), 429, "rate_limited", "7"),
        (ApiFault(status=429), 429, "rate_limited", None),
        (ApiFault(status=503), 503, "public_api_disabled", None),
        (ApiFault(status=500, code="internal_error"), 500, "internal_error", None),
    ],
)
async def test_not_now_is_passed_on_and_the_same_key_sends_again(
    database_url: str, given: ApiFault, status: int, code: str, wait: str | None
) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        fault(room, given)
        refused = await room.create()
        assert (refused.status_code, code_of(refused)) == (status, code)
        assert refused.headers.get("Retry-After") == wait
        assert refused.json()["error"]["requestId"].startswith("req_")
        stored = await room.submission()
        assert (stored["state"], stored["is_final"], stored["next_attempt_at"]) == ("rejected", 0, None)
        accepted = await room.create()
        assert (accepted.status_code, room.calls, room.charged()) == (200, 2, 1)


async def test_what_rivya_clearly_refused_is_never_sent_behind_the_callers_back(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        fault(room, ApiFault(status=503))
        await room.create()
        room.clock.advance(seconds=100_000)
        await room.retrier.run_once()
        assert (room.calls, room.charged()) == (1, 0)


async def test_a_rivya_out_of_reach_is_said_so_and_the_same_key_sends_later(database_url: str) -> None:
    async with serve_manually() as (sandbox, base_url):
        async with open_submission(database_url, (sandbox, "http://127.0.0.1:1")) as cut_off:
            refused = await cut_off.create()
            assert (refused.status_code, code_of(refused)) == (503, "rivya_unreachable")
            assert int(refused.headers["Retry-After"]) > 0
        async with open_submission(database_url, (sandbox, base_url)) as room:
            assert (await room.create()).status_code == 200
            assert room.charged() == 1


async def test_the_document_describes_the_body_and_every_answer(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        document = (await room.client.get("/openapi.json")).json()
        operation = document["paths"]["/api/v1/generations"]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert schema["required"] == ["model"]
        assert schema["example"]["model"] == "z-image"
        assert {"200", "400", "401", "403", "409", "413", "429", "503", "504"} <= set(operation["responses"])
        names = [parameter["name"] for parameter in operation["parameters"]]
        assert names == ["Idempotency-Key", "Receiver-Callback-Url"]
        assert operation["security"]


async def refused(room: SubmissionHarness, answer: httpx.Response) -> tuple[int, str]:
    assert room.calls == 0
    assert answer.json()["error"]["message"]
    return answer.status_code, code_of(answer)


async def test_what_cannot_be_used_is_refused_before_anything_is_written(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        assert await refused(room, await room.create(b"{}")) == (400, "validation_failed")
        assert await refused(room, await room.create(key="x" * 256)) == (400, "validation_failed")
        assert await refused(room, await room.create(b" " * 1024 * 1024 + BODY)) == (413, "payload_too_large")
        assert await refused(room, await room.create(as_role="read")) == (403, "api_scope_denied")
        assert await refused(room, await room.create(as_role="nobody")) == (401, "api_key_invalid")


async def test_a_body_of_unknown_length_is_read_no_further_than_allowed(database_url: str) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65536

    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        headers = {"Authorization": "Bearer write-token"}
        answer = await room.client.post("/api/v1/generations", content=endless(), headers=headers)
        assert await refused(room, answer) == (413, "payload_too_large")
