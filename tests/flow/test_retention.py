"""What is old goes, bodies first; event ids stay a month longer; what is open stays whatever its age."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.core.leases import Leases
from app.ledger.report import Report
from app.ledger.status import Outcome
from app.ledger.tables import deliveries, generations, transitions
from app.operating.pruning import Pruning
from app.operating.retention import Retention
from tests.clock import ManualClock
from tests.ledger import LedgerRoom, open_ledger
from tests.reports import submit, webhook

DAYS = 90


@dataclass
class RetentionRoom:
    ledger: LedgerRoom
    clock: ManualClock

    def replica(self, name: str = "one", *, days: int = DAYS, most: int = 100) -> Retention:
        leases = Leases(self.ledger.database, holder=name)
        return Retention(Pruning(self.ledger.database), leases, clock=self.clock, days=days, share=0.5, most=most)

    async def record(self, *reports: Report) -> list[Outcome]:
        return [item.outcome for item in await self.ledger.ledger.record(reports)]

    async def prune(self, retention: Retention) -> int:
        """Turn until there is nothing more to do; how many turns it took."""
        turns = 1
        while await retention.turn() < 1:
            turns += 1
        return turns

    async def known(self) -> set[str]:
        return {row["id"] for row in await self.ledger.rows(generations)}

    async def kept(self) -> dict[str, bytes]:
        """The body of each delivery, by its event."""
        return {row["event_id"]: row["body"] for row in await self.ledger.rows(deliveries)}

    def pass_days(self, days: float) -> None:
        self.clock.advance(seconds=timedelta(days=days).total_seconds())


@asynccontextmanager
async def open_room(url: str) -> AsyncIterator[RetentionRoom]:
    async with open_ledger(url) as ledger:
        yield RetentionRoom(ledger, ManualClock())


def evidence(event_id: str, **changes: Any) -> Report:
    """A delivery that says nothing of a generation of ours."""
    report = webhook("nobody", "succeeded", event_id=event_id)
    assert report.delivery is not None
    return replace(report, claim=None, delivery=replace(report.delivery, kept_as=Outcome.TEST, **changes))


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
        assert await room.kept() == {"evt_old_succeeded": b""}
        room.pass_days(0.1)
        await room.prune(room.replica())
        assert await room.kept() == {}


async def test_what_is_open_stays_whatever_its_age(database_url: str) -> None:
    async with open_room(database_url) as room:
        await room.record(submit("open"), webhook("running", "processing"))
        room.pass_days(10 * DAYS)
        await room.prune(room.replica())
        assert await room.known() == {"open", "running"}
        assert await room.kept() == {"evt_running_processing": b"{}"}


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
        await room.record(*(evidence(f"evt_{n}") for n in range(5)), evidence("evt_about", about="gone"))
        room.pass_days(DAYS)
        await room.prune(room.replica(most=2))
        assert set((await room.kept()).values()) == {b"{}"}
        room.pass_days(1)
        await room.prune(room.replica(most=2))
        assert set((await room.kept()).values()) == {b""}


async def test_zero_days_keep_everything(database_url: str) -> None:
    async with open_room(database_url) as room:
        await room.record(webhook("old", "succeeded"))
        room.pass_days(10_000)
        assert await room.replica(days=0).turn() == 3600
        assert await room.known() == {"old"}


async def test_one_turn_removes_no_more_than_its_batch(database_url: str) -> None:
    async with open_room(database_url) as room:
        await room.record(*(webhook(f"g{n}", "succeeded") for n in range(7)))
        room.pass_days(DAYS + 1)
        retention = room.replica(most=3)
        left = []
        for _ in range(3):
            await retention.turn()
            left.append(len(await room.known()))
        assert left == [4, 1, 0]


async def test_one_replica_prunes_and_the_others_wait(database_url: str) -> None:
    async with open_room(database_url) as room:
        await room.record(*(webhook(f"g{n}", "succeeded") for n in range(4)))
        room.pass_days(DAYS + 1)
        one, other = room.replica("one", most=2), room.replica("other", most=2)
        assert await one.turn() < 1
        assert await other.turn() == 60
        assert len(await room.known()) == 2
        room.pass_days(0.001)  # the first one was killed; its lease has run out
        assert await other.turn() < 1
        assert await room.known() == set()


async def test_a_replica_that_is_stopped_lets_another_go_on_at_once(database_url: str) -> None:
    async with open_room(database_url) as room:
        await room.record(*(webhook(f"g{n}", "succeeded") for n in range(4)))
        room.pass_days(DAYS + 1)
        one, other = room.replica("one", most=2), room.replica("other", most=2)
        assert await one.turn() < 1
        await other.stop()  # it has nothing to give back
        assert await other.turn() == 60
        await one.stop()
        assert await other.turn() < 1
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
        assert set((await room.kept()).values()) == {b""}


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
        assert await retention.turn() == pytest.approx(0.2 / 0.05 - 0.2)
