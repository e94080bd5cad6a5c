"""No usable answer: 504 for the caller, and the background finds out with the same key, without paying again."""

import asyncio

import pytest
from structlog.testing import capture_logs

from app.ledger.tables import generations
from app.sandbox.accounts import DEFAULT_KEY
from app.sandbox.faults import ApiFault
from tests.support.clock import ManualClock
from tests.support.submission_harness import (
    BODY,
    LEASE_SECONDS,
    SubmissionHarness,
    code_of,
    open_submission,
    serve_manually,
)

FIRST_RETRY_SECONDS = 5.0


def spoil(room: SubmissionHarness, *faults: ApiFault) -> None:
    room.sandbox.faults.api = list(faults)


@pytest.mark.parametrize(
    "given",
    [
        ApiFault(when="after", connection="reset"),
        ApiFault(when="after", connection="hang_up"),
        ApiFault(when="after", status=200, body="garbage"),
        ApiFault(when="after", status=200, body="empty"),
        ApiFault(when="after", status=502, body="garbage"),
    ],
    ids=["reset", "hang up", "garbage", "empty", "bad gateway"],
)
async def test_performed_but_not_answered_is_resolved_with_the_same_key_and_paid_once(
    database_url: str, given: ApiFault
) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        given.times = 1
        spoil(room, given)
        answer = await room.create()
        assert (answer.status_code, code_of(answer)) == (504, "submission_unknown")
        assert answer.headers["Idempotency-Key"] == "key-1"
        assert await room.room.rows(generations) == []
        room.clock.advance(seconds=FIRST_RETRY_SECONDS - 1)
        await room.retrier.run_once()
        assert room.calls == 1, "not before it is due"
        room.clock.advance(seconds=1)
        await room.retrier.run_once()
        assert (room.calls, room.charged()) == (2, 1)
        generation = await room.generation()
        assert (generation["status"], generation["client_request_id"]) == ("queued", "order-1")
        again = await room.create()
        assert (again.status_code, again.json()["id"], room.calls) == (200, generation["id"], 2)


async def test_a_time_out_is_resolved_with_the_same_key_and_paid_once(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya, deadline=0.3) as room:
        spoil(room, ApiFault(when="after", hang=1, times=1))
        answer = await room.create()
        assert (answer.status_code, code_of(answer), room.charged()) == (504, "submission_unknown", 1)
        await room.sandbox.advance(1)
        room.clock.advance(seconds=FIRST_RETRY_SECONDS)
        await room.retrier.run_once()
        assert ((await room.submission())["state"], room.charged()) == ("accepted", 1)


async def test_a_repeat_waits_for_the_resolution_and_gets_its_answer(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        spoil(room, ApiFault(when="after", connection="reset", times=1))
        await room.create()
        waiting = asyncio.create_task(room.create())
        room.clock.advance(seconds=FIRST_RETRY_SECONDS)
        await room.retrier.run_once()
        answer = await waiting
        assert (answer.status_code, answer.headers["Idempotency-Replayed"]) == (200, "true")


async def test_a_repeat_waits_no_longer_than_a_create_may_take(database_url: str) -> None:
    clock = ManualClock()

    async def pause(_: asyncio.Event, seconds: float) -> None:
        clock.advance(seconds=seconds)

    async with serve_manually() as rivya, open_submission(database_url, rivya, clock=clock, pause=pause) as room:
        spoil(room, ApiFault(when="after", connection="reset", times=1))
        await room.create()
        answer = await room.create()
        assert (answer.status_code, code_of(answer)) == (504, "submission_unknown")
        assert (clock.monotonic(), room.calls) == (30, 1)


async def test_the_backgrounds_refusal_is_final_and_told_to_a_repeat(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        spoil(room, ApiFault(connection="reset", times=1), ApiFault(status=404, times=1))
        await room.create()
        room.clock.advance(seconds=FIRST_RETRY_SECONDS)
        await room.retrier.run_once()
        answer = await room.create()
        assert (answer.status_code, code_of(answer), room.calls) == (404, "not_found", 2)


async def test_a_refused_api_key_settles_no_doubt(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        spoil(room, ApiFault(when="after", connection="reset", times=1))
        await room.create()
        room.sandbox.keys[DEFAULT_KEY].revoked = True
        room.clock.advance(seconds=FIRST_RETRY_SECONDS)
        await room.retrier.run_once()
        assert (await room.submission())["state"] == "unknown"
        assert [type(error).__name__ for error in room.budget.noted] == ["RivyaUnavailable", "RivyaUnauthorized"]
        room.sandbox.keys[DEFAULT_KEY].revoked = False
        room.clock.advance(seconds=2 * FIRST_RETRY_SECONDS)
        await room.retrier.run_once()
        assert ((await room.submission())["state"], room.charged()) == ("accepted", 1)


async def test_a_wait_that_rivya_asks_the_background_for_is_kept(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        spoil(room, ApiFault(connection="reset", times=1), ApiFault(status=429, retry_after="120", times=1))
        await room.create()
        for seconds, calls in ((FIRST_RETRY_SECONDS, 2), (119, 2), (1, 3)):
            room.clock.advance(seconds=seconds)
            await room.retrier.run_once()
            assert room.calls == calls
        assert (await room.submission())["state"] == "accepted"


async def test_without_a_slot_nothing_is_sent_and_nothing_is_put_off(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        spoil(room, ApiFault(when="after", connection="reset", times=1))
        await room.create()
        room.clock.advance(seconds=FIRST_RETRY_SECONDS)
        room.budget.left = 0
        await room.retrier.run_once()
        assert room.calls == 1
        room.budget.left = 1
        await room.retrier.run_once()
        assert (await room.submission())["state"] == "accepted"


async def test_what_stays_unknown_for_a_day_is_tried_hourly_and_logged(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        spoil(room, ApiFault(connection="reset"))
        await room.create()
        room.clock.advance(seconds=24 * 3600)
        with capture_logs() as logs:
            await room.retrier.run_once()
        [line] = [line for line in logs if line["event"] == "submission.unresolved"]
        assert line["hours"] == 24
        assert "key-1" not in str(logs)
        assert BODY.decode() not in str(logs)
        room.clock.advance(seconds=3599)
        await room.retrier.run_once()
        assert room.calls == 2
        room.clock.advance(seconds=1)
        await room.retrier.run_once()
        assert room.calls == 3


async def test_many_unknowns_are_resolved_some_at_a_time_without_a_rest_between(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        spoil(room, ApiFault(when="after", connection="reset", times=11))
        await asyncio.gather(*(room.create(key=f"key-{n}") for n in range(11)))
        room.clock.advance(seconds=LEASE_SECONDS)
        pauses = [await room.retrier.run_once() for _ in range(3)]
        assert pauses == [0.25, 0.25, 1]
        assert (len(await room.room.rows(generations)), room.calls) == (11, 22)
