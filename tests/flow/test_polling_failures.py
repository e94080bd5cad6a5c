"""A poll that fails backs off and changes nothing else; one that is told "not found" often enough gives up."""

from typing import Any

import pytest

from app.ledger.tables import transitions
from app.polling.poller import LOST, POLLS, Poller
from app.sandbox.faults import ApiFault
from tests.support.metric_values import value
from tests.support.polling_harness import IMPATIENT, PollingHarness, Replica, open_polling
from tests.support.reports import webhook

FAILURES = {
    "unavailable 500 internal_error": ApiFault(status=500),
    "unavailable 503 public_api_disabled": ApiFault(status=503),
    "unavailable 502": ApiFault(status=502, body="garbage"),
    "unavailable": ApiFault(connection="reset"),
    "unreadable 200": ApiFault(status=200, body="garbage"),
    "refused 400 validation_failed": ApiFault(status=400),
    "refused 418 teapot": ApiFault(status=418, code="teapot"),
}
BOOKKEEPING = {"next_poll_at", "polls", "failures", "last_error"}


async def overdue(room: PollingHarness, replica: Replica) -> str:
    """A generation that Rivya has finished, whose callback is overdue."""
    [task] = await room.submit(replica)
    await room.sandbox.settle(task)
    await replica.wait_until_due(task)
    return task


def counted(result: str) -> float:
    return value(POLLS.labels(result))


@pytest.mark.parametrize("error", FAILURES)
async def test_a_failed_poll_changes_nothing_but_its_bookkeeping(database_url: str, error: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        task = await overdue(room, replica)
        before, polls = await replica.row(task), counted(error.partition(" ")[0])
        room.sandbox.faults.api.append(FAILURES[error])
        await replica.poll()

        after = await replica.row(task)
        assert {name for name in after if after[name] != before[name]} == BOOKKEEPING
        assert (after["polls"], after["failures"], after["last_error"]) == (1, 1, error)
        assert len(await replica.rows(transitions)) == 1
        assert counted(error.partition(" ")[0]) == polls + 1


async def test_an_answer_that_takes_too_long_is_a_failure(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(deadlines=IMPATIENT)
        task = await overdue(room, replica)
        room.sandbox.faults.api.append(ApiFault(hang=120))
        await replica.poll()
        assert (await replica.row(task))["last_error"] == "unavailable"


async def test_an_answer_about_another_generation_is_unreadable(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        task = await overdue(room, replica)
        known = room.sandbox.generations.by_id
        [other] = await room.generate()
        known[task] = known[other]
        await replica.poll()
        row = await replica.row(task)
        assert (row["status"], row["last_error"]) == ("queued", "unreadable 200")


async def test_failures_in_a_row_back_off_and_an_answer_forgets_them(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await room.submit(replica)
        await replica.wait_until_due(task)
        room.sandbox.faults.api.append(ApiFault(status=500, times=7))
        gaps = []
        for _ in range(7):
            await replica.poll()
            gaps.append(await replica.wait_until_due(task))
        assert gaps == pytest.approx([10, 20, 40, 80, 160, 300, 300], rel=0.01)

        await replica.poll()
        row = await replica.row(task)
        assert (row["failures"], row["last_error"]) == (0, None)


async def test_a_server_that_names_the_time_to_come_back_is_not_asked_before(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        task = await overdue(room, replica)
        room.sandbox.faults.api.append(ApiFault(status=503, retry_after=120))
        await replica.poll()
        assert await replica.wait_until_due(task) == pytest.approx(120, abs=0.2)


async def test_while_callbacks_fail_a_generation_that_is_backed_off_from_keeps_its_time(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        task = await overdue(room, replica)
        room.sandbox.faults.api.append(ApiFault(status=503, retry_after=120))
        await replica.poll()
        replica.callbacks_expected = False
        before = await replica.row(task)
        await replica.poller.run_once()
        assert await replica.row(task) == before


async def not_found_until_lost(replica: Replica, task: str) -> float:
    """Poll until the generation is not polled any more; returns the seconds that took."""
    began = replica.clock.monotonic()
    while True:
        await replica.poll()
        if (await replica.row(task))["next_poll_at"] is None:
            return replica.clock.monotonic() - began
        await replica.wait_until_due(task)


async def test_a_generation_not_found_for_ten_minutes_is_lost(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await room.submit(replica)
        del room.sandbox.generations.by_id[task]
        await replica.wait_until_due(task)
        lost = value(LOST)

        assert 600 <= await not_found_until_lost(replica, task) <= 700

        row = await replica.row(task)
        assert (row["tracking"], row["status"]) == ("lost", "queued")
        assert row["not_found_count"] >= 3
        assert row["last_error"] == "not_found 404 not_found"
        assert value(LOST) == lost + 1


async def test_a_lost_generation_is_not_asked_for_again_but_takes_its_outcome(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await room.submit(replica)
        del room.sandbox.generations.by_id[task]
        await replica.wait_until_due(task)
        await not_found_until_lost(replica, task)
        asked = len(room.polls)
        room.clock.advance(seconds=86_400)
        await replica.poll()
        assert len(room.polls) == asked

        await replica.ledger.record([_webhook(task, replica)])
        row = await replica.row(task)
        assert (row["status"], row["tracking"], row["settled_by"]) == ("succeeded", "settled", "webhook")


async def test_found_again_it_starts_over(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await room.submit(replica)
        await replica.wait_until_due(task)
        room.sandbox.faults.api.append(ApiFault(status=404, times=2))
        for _ in range(3):
            await replica.poll()
            await replica.wait_until_due(task)
        row = await replica.row(task)
        assert (row["tracking"], row["not_found_count"], row["not_found_since"]) == ("watching", 0, None)


async def test_one_generation_that_breaks_the_poller_holds_up_no_other(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        tasks = await room.submit(replica, 3)
        for task in tasks:
            await room.sandbox.settle(task)
        await replica.wait_until_due(tasks[0])
        _break(replica.poller, tasks[1])
        await replica.poll()
        assert [(await replica.row(task))["status"] for task in tasks] == ["succeeded", "queued", "succeeded"]
        assert (await replica.row(tasks[1]))["last_error"] == "broken ZeroDivisionError"


def _break(poller: Poller, generation_id: str) -> None:
    """Put a bug where none is known."""
    poll = poller._ask

    async def broken(lease: Any, before_send: Any) -> Any:
        return 1 / 0 if lease.generation_id == generation_id else await poll(lease, before_send)

    poller._ask = broken  # type: ignore[method-assign]


def _webhook(task: str, replica: Replica) -> Any:
    return webhook(task, "succeeded", at=replica.clock.now())
