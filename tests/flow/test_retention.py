"""What is old goes, bodies first; event ids stay a month longer; what is open stays whatever its age."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from structlog.testing import capture_logs

from app.core.leases import Leases
from app.ledger.models import Outcome, Report
from app.ledger.tables import deliveries, generations, transitions
from app.operations.retention import Pruning, Retention
from tests.support.clock import NOON, ManualClock
from tests.support.ledger_harness import LedgerHarness, open_ledger
from tests.support.reports import submit, webhook
from tests.support.row_counter import RowsRead

DAYS = 90


@dataclass
class RetentionHarness:
    ledger: LedgerHarness
    clock: ManualClock

    def replica(self, name: str = "one", *, days: int = DAYS, most: int = 100) -> Retention:
        leases = Leases(self.ledger.database, holder=name)
        return Retention(Pruning(self.ledger.database), leases, clock=self.clock, days=days, share=0.5, most=most)

    async def record(self, *reports: Report) -> list[Outcome]:
        return [item.outcome for item in await self.ledger.ledger.record(reports)]

    async def prune(self, retention: Retention) -> int:
        """Turn until there is nothing more to do; how many turns it took."""
        turns = 1
        while await retention.run_once() < 1:
            turns += 1
        return turns

    async def known(self) -> set[str]:
        return {row["id"] for row in await self.ledger.rows(generations)}

    async def bodies(self) -> dict[str, bytes]:
        """The body of each delivery, by its event."""
        return {row["event_id"]: row["body"] for row in await self.ledger.rows(deliveries)}

    def pass_days(self, days: float) -> None:
        self.clock.advance(seconds=timedelta(days=days).total_seconds())


@asynccontextmanager
async def open_room(url: str) -> AsyncIterator[RetentionHarness]:
    async with open_ledger(url) as ledger:
        yield RetentionHarness(ledger, ManualClock())


def evidence(event_id: str, **changes: Any) -> Report:
    """A delivery that says nothing of a generation of ours."""
    report = webhook("nobody", "succeeded", event_id=event_id)
    assert report.delivery is not None
    return replace(report, claim=None, delivery=replace(report.delivery, stored_outcome=Outcome.TEST, **changes))


async def test_what_was_settled_long_ago_goes_with_its_history_and_its_deliveries_bodies(database_url: str) -> None:
    async with open_room(database_url) as room:
        await room.record(submit("old"), webhook("old", "succeeded"))
        room.pass_days(DAYS)
        await room.record(webhook("new", "failed", at=room.clock.now()))
        await room.prune(room.replica())
        assert await room.known() == {"old", "new"}
        room.pass_days(1)
        await room.prune(room.replica())
        assert await room.known() == {"new"}
        assert {row["generation_id"] for row in await room.ledger.rows(transitions)} == {"new"}
        rows = {row["event_id"]: row for row in await room.ledger.rows(deliveries)}
        old, new = rows["evt_old_succeeded"], rows["evt_new_failed"]
        assert (old["body"], old["headers"], old["body_pruned_at"]) == (b"", "{}", room.clock.now())
        assert (new["body"], new["body_pruned_at"]) == (b"{}", None)


async def test_an_event_is_known_for_thirty_days_after_its_body_went(database_url: str) -> None:
    async with open_room(database_url) as room:
        await room.record(webhook("old", "succeeded"))
        room.pass_days(DAYS + 1)
        await room.prune(room.replica())
        room.pass_days(30)
        await room.prune(room.replica())
        await room.record(webhook("old", "succeeded", at=room.clock.now()))
        assert await room.known() == set()  # it came again, and changed nothing
        assert await room.bodies() == {"evt_old_succeeded": b""}
        room.pass_days(0.1)
        await room.prune(room.replica())
        assert await room.bodies() == {}


async def test_what_is_open_stays_whatever_its_age(database_url: str) -> None:
    async with open_room(database_url) as room:
        await room.record(submit("open"), webhook("running", "processing"))
        room.pass_days(10 * DAYS)
        await room.prune(room.replica())
        assert await room.known() == {"open", "running"}
        assert await room.bodies() == {"evt_running_processing": b"{}"}


async def test_what_settled_late_is_kept_from_then_on(database_url: str) -> None:
    async with open_room(database_url) as room:
        await room.record(submit("slow"))
        room.pass_days(DAYS)
        await room.record(webhook("slow", "succeeded", at=room.clock.now()))
        room.pass_days(DAYS - 1)
        await room.prune(room.replica())
        assert await room.known() == {"slow"}


async def test_deliveries_of_no_generation_lose_their_bodies_too(database_url: str) -> None:
    async with open_room(database_url) as room:
        await room.record(*(evidence(f"evt_{n}") for n in range(5)), evidence("evt_about", mentioned_id="gone"))
        room.pass_days(DAYS)
        await room.prune(room.replica(most=2))
        assert set((await room.bodies()).values()) == {b"{}"}
        room.pass_days(1)
        await room.prune(room.replica(most=2))
        assert set((await room.bodies()).values()) == {b""}


async def test_zero_days_keep_everything(database_url: str) -> None:
    async with open_room(database_url) as room:
        await room.record(webhook("old", "succeeded"))
        room.pass_days(10_000)
        assert await room.replica(days=0).run_once() == 3600
        assert await room.known() == {"old"}


async def test_one_turn_removes_no_more_than_its_batch(database_url: str) -> None:
    async with open_room(database_url) as room:
        await room.record(*(webhook(f"g{n}", "succeeded") for n in range(7)))
        room.pass_days(DAYS + 1)
        retention = room.replica(most=3)
        left = []
        for _ in range(3):
            await retention.run_once()
            left.append(len(await room.known()))
        assert left == [4, 1, 0]


async def test_one_replica_prunes_and_the_others_wait(database_url: str) -> None:
    async with open_room(database_url) as room:
        await room.record(*(webhook(f"g{n}", "succeeded") for n in range(4)))
        room.pass_days(DAYS + 1)
        one, other = room.replica("one", most=2), room.replica("other", most=2)
        assert await one.run_once() < 1
        assert await other.run_once() == 60
        assert len(await room.known()) == 2
        room.pass_days(0.001)  # the first one was killed; its lease has run out
        assert await other.run_once() < 1
        assert await room.known() == set()


async def test_a_replica_that_is_stopped_lets_another_go_on_at_once(database_url: str) -> None:
    async with open_room(database_url) as room:
        await room.record(*(webhook(f"g{n}", "succeeded") for n in range(4)))
        room.pass_days(DAYS + 1)
        one, other = room.replica("one", most=2), room.replica("other", most=2)
        assert await one.run_once() < 1
        await other.stop()  # it has nothing to give back
        assert await other.run_once() == 60
        await one.stop()
        assert await other.run_once() < 1
        assert await room.known() == set()


async def test_rows_that_somebody_has_locked_are_not_waited_for(postgres_url: str) -> None:
    async with open_room(postgres_url) as room:
        await room.record(webhook("busy", "succeeded"), webhook("free", "succeeded"))
        room.pass_days(DAYS + 1)
        async with room.ledger.database.transaction() as connection:
            await connection.execute(select(generations.c.id).where(generations.c.id == "busy").with_for_update())
            await room.prune(room.replica())
            assert await room.known() == {"busy"}
        await room.prune(room.replica())
        assert await room.known() == set()
        assert set((await room.bodies()).values()) == {b""}


class SlowClock(ManualClock):
    """Every look at it takes time."""

    def monotonic(self) -> float:
        self.advance(seconds=0.2)
        return super().monotonic()


async def test_pruning_takes_no_more_than_its_share_of_the_time(sqlite_url: str) -> None:
    async with open_room(sqlite_url) as room:
        await room.record(webhook("one", "succeeded"), webhook("other", "succeeded"))
        room.clock = SlowClock()
        room.pass_days(DAYS + 1)
        leases = Leases(room.ledger.database, holder="one")
        pruning = Pruning(room.ledger.database)
        retention = Retention(pruning, leases, clock=room.clock, days=DAYS, share=0.05, most=1)
        assert await retention.run_once() == pytest.approx(0.2 / 0.05 - 0.2)


async def test_deliveries_that_were_pruned_are_not_read_again(postgres_url: str) -> None:
    async with open_room(postgres_url) as room:
        await room.record(*(evidence(f"evt_{n}") for n in range(1000)))  # of fewer PostgreSQL may read all
        room.pass_days(DAYS + 1)
        retention = room.replica(most=50)
        await room.prune(retention)
        rows_read = RowsRead(room.ledger.database, "deliveries")
        await room.prune(retention)
        assert sum(rows_read.counts) == 0
        await room.record(evidence("evt_new"))
        room.pass_days(1)
        await room.prune(retention)
        assert 0 < sum(rows_read.counts) < 10
        assert set((await room.bodies()).values()) == {b""}


async def test_no_statement_reads_more_than_a_page_of_what_another_process_has_pruned(postgres_url: str) -> None:
    async with open_room(postgres_url) as room:
        await room.record(*(evidence(f"evt_{n}", received_at=NOON + timedelta(seconds=n)) for n in range(2000)))
        room.pass_days(DAYS + 1)
        await room.prune(room.replica(most=500))
        await room.record(evidence("evt_new", received_at=NOON + timedelta(seconds=2000)))
        room.pass_days(1)
        rows_read = RowsRead(room.ledger.database, "deliveries")
        await room.prune(room.replica(most=20))
        assert 0 < max(rows_read.counts) <= 200
        assert set((await room.bodies()).values()) == {b""}


async def test_a_delivery_that_somebody_has_locked_is_emptied_in_the_next_pass(postgres_url: str) -> None:
    async with open_room(postgres_url) as room:
        await room.record(*(evidence(f"evt_{n}") for n in range(5)), webhook("old", "succeeded"))
        room.pass_days(DAYS + 1)
        retention = room.replica(most=2)
        busy = select(deliveries).where(deliveries.c.event_id.in_(["evt_2", "evt_old_succeeded"])).with_for_update()
        async with room.ledger.database.transaction() as connection:
            await connection.execute(busy)
            await room.prune(retention)
            left = {key for key, body in (await room.bodies()).items() if body}
            assert left == {"evt_2", "evt_old_succeeded"}
            assert await room.known() == {"old"}
        await room.prune(retention)
        assert set((await room.bodies()).values()) == {b""}
        assert await room.known() == set()


TOO_SLOW = """
CREATE FUNCTION too_slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM updated) > 3 THEN
        RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = 'query_canceled';
    END IF;
    RETURN NULL;
END $$
"""
ON_UPDATE = """
CREATE TRIGGER too_slow AFTER UPDATE ON deliveries REFERENCING NEW TABLE AS updated
FOR EACH STATEMENT EXECUTE FUNCTION too_slow()
"""


async def test_what_takes_too_long_is_tried_in_smaller_batches_and_holds_up_no_other_kind(postgres_url: str) -> None:
    async with open_room(postgres_url) as room:
        await room.record(webhook("forgotten", "succeeded"))
        room.pass_days(DAYS + 1)
        await room.prune(room.replica())
        room.pass_days(31)
        await room.record(*(evidence(f"evt_{n}") for n in range(20)))
        await room.record(*(webhook(f"g{n}", "succeeded") for n in range(20)))
        async with room.ledger.database.transaction() as connection:
            await connection.execute(text(TOO_SLOW))
            await connection.execute(text(ON_UPDATE))
        retention = room.replica()
        with capture_logs() as logs:
            await retention.run_once()
            assert set(await room.bodies()) >= {"evt_0", "evt_g0_succeeded"}
            assert "evt_forgotten_succeeded" not in await room.bodies()
            assert len(await room.known()) == 20
            await room.prune(retention)
        late = [(line["what"], line["batch"], line["next"]) for line in logs if line["event"] == "retention.timed_out"]
        assert late[:2] == [("generations", 100, 25), ("bodies", 100, 25)]
        assert all(line["reason"] for line in logs if line["event"] == "retention.timed_out")
        assert await room.known() == set()
        assert set((await room.bodies()).values()) == {b""}
