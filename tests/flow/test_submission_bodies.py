"""Bodies of creates go with their time and on an operator's order; the key stays, and nothing is paid twice."""

import httpx
import pytest

from app.core.errors import NotFound
from app.core.leases import Leases
from app.ledger.tables import generations
from app.operations.retention import Pruning, Retention
from app.sandbox.faults import ApiFault
from app.submission.store import submissions
from tests.support.operations_harness import at_desk
from tests.support.submission_harness import BODY, SubmissionHarness, code_of, open_submission, serve_manually

DAY = 86_400.0


def retention_of(room: SubmissionHarness) -> Retention:
    database = room.room.database
    leases = Leases(database, holder="one")
    return Retention(Pruning(database), leases, clock=room.clock, days=90, share=0.5, most=100)


async def prune(retention: Retention) -> None:
    while await retention.run_once() < 60:
        pass


def is_expired(answer: httpx.Response) -> bool:
    return (answer.status_code, code_of(answer)) == (410, "idempotency_key_expired")


async def test_the_bodies_of_a_create_go_when_their_days_are_over(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        first = await room.create()
        retention = retention_of(room)
        room.clock.advance(seconds=89 * DAY)
        await prune(retention)
        assert (await room.submission())["request"] == BODY
        assert (await room.create()).content == first.content
        before = await room.submission()
        room.clock.advance(seconds=2 * DAY)
        await prune(retention)
        assert await room.submission() == {**before, "request": b"", "response": None}


async def test_an_old_key_is_never_paid_again_and_names_its_generation(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        generation_id = (await room.create()).json()["id"]
        room.clock.advance(seconds=91 * DAY)
        await prune(retention_of(room))
        again = await room.create()
        assert is_expired(again)
        assert generation_id in again.json()["error"]["message"]
        other = await room.create(BODY.replace(b"lighthouse", b"harbour"))
        assert (other.status_code, code_of(other)) == (409, "idempotency_conflict")
        assert (room.calls, room.charged()) == (1, 1)


async def test_what_was_refused_for_good_expires_and_what_was_refused_for_now_is_sent_whole(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        await room.create(b'{"model": "no-such-model"}', key="refused")
        room.sandbox.faults.api = [ApiFault(status=503, times=1)]
        assert (await room.create()).status_code == 503
        room.clock.advance(seconds=91 * DAY)
        await prune(retention_of(room))
        assert is_expired(await room.create(b'{"model": "no-such-model"}', key="refused"))
        assert (await room.create()).status_code == 200
        assert room.charged() == 1


async def test_a_create_whose_outcome_is_unknown_keeps_its_body_and_is_still_resolved(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        room.sandbox.faults.api = [ApiFault(when="after", connection="reset", times=1)]
        assert (await room.create(callback="https://shop.example.com/secret")).status_code == 504
        retention = retention_of(room)
        room.clock.advance(seconds=91 * DAY)
        await prune(retention)
        assert (await room.submission())["request"] == BODY
        await room.retrier.run_once()
        assert (await room.submission())["state"] == "accepted"
        room.clock.advance(seconds=91 * DAY)
        await prune(retention)
        stored = await room.submission()
        assert (stored["request"], stored["callback_url"]) == (b"", None)
        assert room.charged() == 1


@pytest.mark.parametrize("is_gone", [False, True], ids=["in the record", "removed before"])
async def test_a_forgotten_generation_takes_its_prompt_along(database_url: str, is_gone: bool) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        generation_id = (await room.create()).json()["id"]
        await room.create(key="other")
        if is_gone:
            async with room.room.database.transaction() as connection:
                await connection.execute(generations.delete().where(generations.c.id == generation_id))
        async with at_desk(database_url) as desk:
            await desk.commands.delete(generation_id, even_open=True)
            with pytest.raises(NotFound):
                await desk.commands.delete(generation_id, even_open=True)
        assert is_expired(await room.create())
        assert (await room.create(key="other")).status_code == 200
        assert (room.calls, room.charged()) == (2, 1)


async def test_of_a_refused_create_the_hash_and_the_answer_are_kept_and_no_body(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        body = b'{"model": "no-such-model", "prompt": "' + b"x" * 500_000 + b'"}'
        first = await room.create(body, key="refused")
        again = await room.create(body, key="refused")
        assert (first.status_code, first.content) == (again.status_code, again.content)
        [stored] = await room.room.rows(submissions)
        assert stored["request"] == b""
        assert len(stored["response"]) < 10_000
        assert code_of(await room.create(BODY, key="refused")) == "idempotency_conflict"
