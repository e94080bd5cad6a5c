"""Counts for charts, and the heartbeats of processes."""

from datetime import timedelta

from app.core.models import Claim
from app.ledger.metrics import REFUSALS, Activity
from app.ledger.models import Report, Source
from app.ledger.tables import activity_minutes
from app.operations.replicas import Heartbeat, replicas
from tests.support.clock import NOON, ManualClock
from tests.support.ledger_harness import open_ledger
from tests.support.reports import poll, submit, webhook


def settled(generation_id: str, *, seconds: float) -> Report:
    """Found by a poll this long after Rivya's own time of the outcome."""
    claim = Claim(id=generation_id, status="failed", updated_at=NOON - timedelta(seconds=seconds))
    return Report(source=Source.POLL, reported_at=NOON, claim=claim)


async def test_deliveries_and_outcomes_are_counted_by_the_minute_of_all_processes(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        one, other = Activity(room.database), Activity(room.database)
        for activity, reports in (
            (one, [submit("g"), webhook("g", "succeeded"), poll("h", "succeeded")]),
            (other, [settled("i", seconds=5), settled("j", seconds=0.5), settled("k", seconds=3600)]),
            (one, [webhook("l", "processing", at=NOON + timedelta(minutes=1))]),
        ):
            activity.add(reports, await room.ledger.record(reports))
        for activity in (one, other, one):
            await activity.run_once()
        rows = {(row["minute"], row["what"]): list(row.values())[2:] for row in await room.rows(activity_minutes)}
        assert rows == {
            (NOON, "deliveries"): [1, 0, 0, 0, 0],
            (NOON, "polls"): [4, 0, 0, 0, 0],
            (NOON, "failed"): [3, 0, 0, 0, 0],
            (NOON, "settled by webhook"): [1, 0, 0, 0, 0],
            (NOON, "settled by poll"): [4, 1, 2, 2, 2],
            (NOON + timedelta(minutes=1), "deliveries"): [1, 0, 0, 0, 0],
        }


async def test_the_sums_of_a_week_are_read_from_one_index_by_minute_ten_minutes_or_hour(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        activity = Activity(room.database)
        for minutes in (0, 1, 9, 10, 59, 60, 8 * 24 * 60):
            activity.count(REFUSALS, NOON - timedelta(minutes=minutes))
        await activity.run_once()
        first = NOON - timedelta(days=7)
        for prefix, expected in ((16, [1, 1, 1, 1, 1, 1]), (15, [1, 3, 2]), (13, [1, 5])):
            sums = await activity.sums(first, prefix=prefix)
            newest_first = sorted(sums, key=lambda each: each.begins, reverse=True)
            assert [each.counts[0] for each in newest_first] == expected
            assert newest_first[0].begins == NOON


async def test_a_process_is_known_by_its_heartbeat_until_it_has_been_silent_for_a_minute(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        clock = ManualClock()
        one, other = (Heartbeat(room.database, clock, name=name) for name in ("one", "other"))
        await one.run_once()
        clock.advance(seconds=50)
        await other.run_once()
        assert [row["id"] for row in await room.rows(replicas)] == ["one", "other"]
        clock.advance(seconds=11)
        await other.run_once()
        [row] = await room.rows(replicas)
        assert (row["id"], row["started_at"], row["seen_at"]) == ("other", NOON, clock.now())
        await other.stop()
        assert await room.rows(replicas) == []
