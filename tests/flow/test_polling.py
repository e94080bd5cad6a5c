"""A generation whose callback is overdue is asked for, and its outcome found."""

import pytest
from sqlalchemy import event

from app.ledger.metrics import CALLBACKS_MISSED
from app.ledger.tables import transitions
from app.polling.schedule import Categories, Schedule
from app.sandbox.faults import ApiFault
from tests.support.metric_values import value
from tests.support.polling_harness import GRACE, open_polling
from tests.support.reports import webhook


async def test_a_missed_callback_is_found_at_the_end_of_its_grace_and_counted(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await room.submit(replica)
        room.sandbox.faults.deliveries.drop = True
        await room.sandbox.settle(task)
        missed = value(CALLBACKS_MISSED)

        assert await replica.wait_until_due(task) == GRACE.total_seconds()
        await replica.poll()

        row = await replica.row(task)
        assert (row["status"], row["settled_by"], row["tracking"]) == ("succeeded", "poll", "settled")
        assert (row["polls"], row["next_poll_at"], row["lease_until"]) == (1, None, None)
        assert [step["source"] for step in await replica.rows(transitions)] == ["submit", "poll"]
        assert value(CALLBACKS_MISSED) == missed + 1


async def test_nothing_is_asked_before_it_is_due(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        await room.submit(replica)
        room.clock.advance(seconds=GRACE.total_seconds() - 0.4)
        assert await replica.poller.run_once() == pytest.approx(0.4)
        assert room.polls == []


async def test_a_poller_with_nothing_to_do_looks_every_second(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        assert await replica.poller.run_once() == 1.0


async def test_an_open_generation_is_asked_for_again_after_growing_gaps(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await room.submit(replica)
        await replica.wait_until_due(task)
        gaps = []
        for _ in range(4):
            await replica.poll()
            gaps.append(await replica.wait_until_due(task))
        assert gaps == pytest.approx([10, 15, 22.6, 34], rel=0.02)
        assert (await replica.row(task))["polls"] == 4


async def test_a_poll_tells_of_progress(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await room.submit(replica)
        await room.sandbox.move(task, "processing")
        await replica.wait_until_due(task)
        await replica.poll()
        row = await replica.row(task)
        assert (row["status"], row["tracking"], row["model"]) == ("processing", "watching", "z-image")


async def test_what_a_callback_settled_is_never_asked_for(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await room.submit(replica)
        await replica.ledger.record([webhook(task, "succeeded", at=room.clock.now())])
        room.clock.advance(seconds=86_400)
        await replica.poll()
        assert room.polls == []


async def test_past_the_horizon_it_is_stalled_asked_for_hourly_and_still_takes_its_outcome(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(schedule=Schedule(grace=GRACE))
        [task] = await room.submit(replica)
        room.clock.advance(seconds=86_400)
        await replica.poll()
        assert (await replica.row(task))["tracking"] == "stalled"
        assert await replica.wait_until_due(task) == 3600

        await room.sandbox.settle(task, "failed")
        await replica.poll()
        row = await replica.row(task)
        assert (row["status"], row["tracking"], row["settled_by"]) == ("failed", "settled", "poll")


async def test_without_callbacks_the_first_poll_comes_after_two_and_a_half_seconds(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        replica.callbacks_expected = False
        [task] = await room.submit(replica)
        assert await replica.wait_until_due(task) == 2.5
        await replica.poll()
        assert 5 <= await replica.wait_until_due(task) <= 10


async def test_when_callbacks_fail_what_waits_for_them_is_asked_for_at_once(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        tasks = await room.submit(replica, 3)
        replica.callbacks_expected = False
        await replica.poller.run_once()
        assert [await replica.wait_until_due(task) for task in tasks] == [2.5, 0, 0]
        await replica.poll()
        assert sorted(room.polled) == sorted(tasks)


async def test_pulling_forward_again_changes_nothing(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        [task] = await room.submit(replica)
        replica.callbacks_expected = False
        await replica.poller.run_once()
        once = await replica.row(task)
        room.clock.advance(seconds=1)
        await replica.poller.run_once()
        assert await replica.row(task) == once


async def test_without_callbacks_nothing_is_written_where_nothing_waits_too_long(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        replica.callbacks_expected = False
        await replica.poller.run_once()
        written: list[str] = []
        event.listen(
            replica.database.engine.sync_engine,
            "before_cursor_execute",
            lambda _connection, _cursor, statement, *_: written.append(statement),
        )
        await replica.poller.run_once()
        assert written
        assert [statement for statement in written if statement.startswith(("WITH", "UPDATE"))] == []


async def test_when_callbacks_work_again_an_early_poll_leaves_the_rest_to_them(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()
        replica.callbacks_expected = False
        [task] = await room.submit(replica)
        first_seen_at = (await replica.row(task))["first_seen_at"]
        await replica.wait_until_due(task)
        replica.callbacks_expected = True
        await replica.poll()
        assert (await replica.row(task))["next_poll_at"] == first_seen_at + GRACE


async def test_the_grace_follows_the_catalogue(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(schedule=Schedule())
        await room.clock.run(replica.categories.run_once())
        models = {"z-image": 60, "sandbox-audio": 120, "sandbox-video": 300, "unheard-of": 120}
        for model, grace in models.items():
            waits = replica.schedule.first_poll(model, room.clock.now()) - room.clock.now()
            assert waits.total_seconds() == grace


async def test_the_catalogue_is_read_hourly_and_once_a_minute_at_most_for_an_unknown_model(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica()

        async def reads_after(seconds: float, categories: Categories = replica.categories) -> int:
            room.clock.advance(seconds=seconds)
            await room.clock.run(categories.run_once())
            return room.sandbox.calls.counts["models.list"]

        assert await reads_after(0) == 1
        assert await reads_after(120) == 1
        replica.categories.of("unheard-of")
        assert await reads_after(1) == 2
        replica.categories.of("unheard-of")
        assert await reads_after(30) == 2
        assert await reads_after(31) == 3
        assert await reads_after(3500) == 3
        assert await reads_after(120) == 4


async def test_a_catalogue_that_cannot_be_read_leaves_models_unknown_and_is_read_again(database_url: str) -> None:
    async with open_polling(database_url) as room:
        replica = await room.replica(schedule=Schedule())
        room.sandbox.faults.api.append(ApiFault(route="models.list", times=1, status=500))
        await room.clock.run(replica.categories.run_once())
        assert replica.categories.of("sandbox-video") is None
        room.clock.advance(seconds=61)
        await room.clock.run(replica.categories.run_once())
        assert replica.categories.of("sandbox-video") == "video"
