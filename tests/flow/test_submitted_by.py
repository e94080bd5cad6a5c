"""A generation remembers the name of the token that submitted it, however its outcome became known."""

from app.sandbox.faults import ApiFault
from tests.support.submission_harness import LEASE_SECONDS, open_submission, serve_manually


async def test_a_generation_remembers_the_name_of_the_token_that_submitted_it(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        answer = await room.create()
        assert answer.json()["tracking"]["submitted_by"] == "shop"
        assert (await room.generation())["submitted_by"] == "shop"


async def test_the_same_create_by_another_token_does_not_change_whose_it_is(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        await room.create()
        again = await room.create(as_role="other")
        assert again.json()["tracking"]["submitted_by"] == "shop"


async def test_a_create_that_rivya_put_off_belongs_to_the_token_that_sent_it_again(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        room.sandbox.faults.api = [ApiFault(status=429, times=1)]
        assert (await room.create()).status_code == 429
        assert (await room.create(as_role="other")).json()["tracking"]["submitted_by"] == "studio"


async def test_a_create_that_the_background_resolved_still_knows_its_caller(database_url: str) -> None:
    async with serve_manually() as rivya, open_submission(database_url, rivya) as room:
        room.sandbox.faults.api = [ApiFault(when="after", connection="hang_up", times=1)]
        assert (await room.create()).status_code == 504
        room.clock.advance(seconds=LEASE_SECONDS)
        await room.retrier.run_once()
        assert (await room.generation())["submitted_by"] == "shop"
