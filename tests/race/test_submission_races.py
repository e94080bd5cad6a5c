"""Many at once with one key: one call, one charge, one answer for all, on one process and on two."""

import asyncio

import httpx

from app.ledger.tables import transitions
from app.sandbox.faults import ApiFault
from tests.support.reports import webhook
from tests.support.submission_harness import (
    BODY,
    LEASE_SECONDS,
    SubmissionHarness,
    code_of,
    eventually,
    open_submission,
    serve_manually,
    until_woken,
)


def hang(room: SubmissionHarness) -> None:
    """The next create is performed, and answered only when the test lets time pass."""
    room.sandbox.faults.api = [ApiFault(route="generations.create", when="after", hang=1, times=1)]


def create_many(room: SubmissionHarness, many: int) -> list[asyncio.Task[httpx.Response]]:
    return [asyncio.create_task(room.create()) for _ in range(many)]


async def test_twenty_of_the_same_at_once_make_one_call_one_charge_and_one_answer(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya, pause=until_woken) as room:
        hang(room)
        tasks = create_many(room, 20)
        await eventually(lambda: room.charged() == 1 and room.waiting == 19)
        await room.sandbox.advance(1)
        answers = await asyncio.gather(*tasks)
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 19
        assert (room.calls, room.charged()) == (1, 1)


async def test_twenty_of_the_same_are_refused_together_with_one_call(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        room.sandbox.faults.api = [ApiFault(status=429, retry_after="3", hang=1, times=1)]
        tasks = create_many(room, 20)
        await eventually(lambda: room.calls == 1 and room.waiting == 19)
        await room.sandbox.advance(1)
        answers = await asyncio.gather(*tasks)
        assert {(answer.status_code, answer.headers["Retry-After"]) for answer in answers} == {(429, "3")}
        assert room.calls == 1


async def test_of_twenty_that_repeat_what_was_not_final_one_sends_it(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        room.sandbox.faults.api = [ApiFault(status=429, times=1)]
        await room.create()
        answers = await asyncio.gather(*create_many(room, 20))
        assert {answer.status_code for answer in answers} == {200}
        assert (room.calls, room.charged()) == (2, 1)


async def test_the_background_leaves_a_repeat_that_is_being_sent_alone(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        room.sandbox.faults.api = [ApiFault(status=429, times=1), ApiFault(when="after", hang=1, times=1)]
        await room.create()
        repeat = asyncio.create_task(room.create())
        await eventually(lambda: room.charged() == 1)
        await room.retrier.run_once()
        await room.sandbox.advance(1)
        assert ((await repeat).status_code, room.calls) == (200, 2)


async def test_the_same_create_on_two_processes_is_sent_by_one_of_them(postgres_url: str) -> None:
    async with (
        serve_manually() as rivya,
        open_submission(postgres_url, rivya) as here,
        open_submission(postgres_url, rivya) as there,
    ):
        answers = await asyncio.gather(*create_many(here, 10), *create_many(there, 10))
        assert len({(answer.status_code, answer.content) for answer in answers}) == 1
        assert (here.calls, here.charged()) == (1, 1)


async def test_of_two_replicas_one_retries_what_is_due(postgres_url: str) -> None:
    async with (
        serve_manually() as rivya,
        open_submission(postgres_url, rivya) as here,
        open_submission(postgres_url, rivya) as there,
    ):
        here.sandbox.faults.api = [ApiFault(when="after", connection="reset", times=1)]
        await here.create()
        for room in (here, there):
            room.clock.advance(seconds=LEASE_SECONDS)
        await asyncio.gather(here.retrier.run_once(), there.retrier.run_once())
        assert (here.calls, here.charged()) == (2, 1)
        assert (await here.submission())["state"] == "accepted"


async def test_a_late_answer_and_the_backgrounds_agree_on_one(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        hang(room)
        slow = asyncio.create_task(room.create())
        await eventually(lambda: room.charged() == 1)
        room.clock.advance(seconds=LEASE_SECONDS)  # this process was asleep: its lease ran out
        await room.retrier.run_once()
        resolved = await room.create()
        await room.batch.record(webhook(resolved.json()["id"], "succeeded"))  # from here on our record says more
        await room.sandbox.advance(1)
        assert (await slow).content == (await room.create()).content == resolved.content
        assert (room.calls, room.charged()) == (2, 1)


async def test_a_late_refusal_is_not_told_while_the_background_is_still_trying(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        room.sandbox.faults.api = [ApiFault(status=400, hang=1, times=1), ApiFault(connection="reset", times=1)]
        slow = asyncio.create_task(room.create())
        await eventually(lambda: room.calls == 1)
        room.clock.advance(seconds=LEASE_SECONDS)
        await room.retrier.run_once()
        await room.sandbox.advance(1)
        assert code_of(await slow) == "submission_unknown"
        room.clock.advance(seconds=LEASE_SECONDS)
        await room.retrier.run_once()
        assert ((await room.create()).status_code, room.charged()) == (200, 1)


async def test_a_callback_that_overtakes_the_answer_leaves_a_legal_history(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        hang(room)
        task = asyncio.create_task(room.create())
        await eventually(lambda: room.charged() == 1)
        [generation_id] = room.sandbox.generations.by_id
        await room.batch.record(webhook(generation_id, "succeeded"))
        await room.sandbox.advance(1)
        generation = (await task).json()
        assert (generation["id"], generation["status"], generation["tracking"]["client_request_id"]) == (
            generation_id,
            "succeeded",
            "order-1",
        )
        [step] = await room.room.rows(transitions)
        assert (step["number"], step["from_status"], step["to_status"]) == (1, None, "succeeded")
        assert (await room.generation())["tracking"] == "settled"


async def test_a_caller_that_hangs_up_does_not_cut_the_bookkeeping_short(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        hang(room)
        task = asyncio.create_task(room.create())
        await eventually(lambda: room.charged() == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await room.sandbox.advance(1)
        await room.service.stop()
        assert (await room.submission())["state"] == "accepted"
        assert (await room.generation())["status"] == "queued"


async def test_more_creates_than_can_be_under_way_are_refused_before_anything_is_written(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya, most_at_once=1) as room:
        hang(room)
        task = asyncio.create_task(room.create())
        await eventually(lambda: room.charged() == 1)
        refused = await room.create(BODY, key="key-2")
        assert (refused.status_code, code_of(refused)) == (503, "overloaded")
        await room.sandbox.advance(1)
        assert (await task).status_code == 200
        assert (await room.submission())["idempotency_key"] == "key-1"


async def test_stopping_lets_those_who_wait_go_and_finishes_what_is_being_sent(database_url: str) -> None:
    paused = asyncio.Event()

    async def pause(event: asyncio.Event, seconds: float) -> None:
        paused.set()
        await until_woken(event, seconds)

    async with serve_manually() as rivya, open_submission(database_url, rivya, pause=pause) as room:
        hang(room)
        sending, waiting = create_many(room, 2)
        await eventually(lambda: room.charged() == 1 and paused.is_set())
        stopping = asyncio.create_task(room.service.stop())
        await eventually(lambda: room.service.under_way == 1)
        await room.sandbox.advance(1)
        await stopping
        answers = {answer.status_code for answer in await asyncio.gather(sending, waiting)}
        assert answers == {200, 504}
        assert code_of(await room.create(key="key-2")) == "overloaded"
