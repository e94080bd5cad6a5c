"""Usage is what the generations say at every moment: whatever changes them, and whether the sums were made or not."""

import asyncio
from collections import defaultdict
from datetime import timedelta
from typing import Any

from app.core.database import Database
from app.core.models import Claim
from app.ledger.models import Report, Source
from app.ledger.queries import Queries
from app.ledger.tables import generations, usage_changes, usage_hours
from app.operations.retention import Pruning
from app.operations.usage_rollup import UsageRollup
from tests.support.clock import NOON
from tests.support.ledger_harness import LedgerHarness, open_ledger
from tests.support.reports import poll, webhook

DAYS = (NOON - timedelta(days=3, hours=12), NOON + timedelta(days=3, hours=12))
Lines = dict[tuple[Any, ...], tuple[float, ...]]


def submitted(generation_id: str, *, by: str | None = "shop", hours: float = 0, reserved: float | None = 2) -> Report:
    claim = Claim(id=generation_id, status="queued", model="z-image", reserved_credits=reserved)
    return Report(source=Source.SUBMIT, reported_at=NOON + timedelta(hours=hours), claim=claim, token=by)


async def usage_lines(database: Database) -> Lines:
    return {
        (line.day, line.submitted_by, line.model): (
            *(line.generations, line.open, line.reserved_credits, line.final_credits),
        )
        for line in await Queries(database).usage(*DAYS, most=1000)
    }


async def there(room: LedgerHarness) -> Lines:
    """The same, from every single generation."""
    sums: dict[tuple[Any, ...], list[float]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in await room.rows(generations):
        line = sums[(row["first_seen_at"].date(), row["submitted_by"], row["model"])]
        values = (1, row["settled_at"] is None, row["reserved_credits"] or 0, row["final_credits"] or 0)
        line[:] = [before + value for before, value in zip(line, values, strict=True)]
    return {key: tuple(round(value, 9) for value in line) for key, line in sums.items()}


async def test_usage_is_what_the_generations_say_before_and_after_it_is_summed(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        sums, pruning = UsageRollup(room.database), Pruning(room.database)
        late = Claim(id="one", status="succeeded", final_credits=1.25)
        steps: list[Any] = [
            [submitted("one"), submitted("two", hours=0.9), submitted("of yesterday", hours=-24), submitted("gone")],
            [webhook("one", "succeeded"), webhook("overtook", "succeeded")],
            [submitted("overtook", by="studio", reserved=0.1), submitted("unpriced", reserved=None)],
            [Report(source=Source.OPERATOR, reported_at=NOON, claim=late), poll("two", "failed")],
            "gone",
            [webhook("of yesterday", "failed"), webhook("gone", "succeeded")],
            "overtook",
            [submitted("new"), submitted("new", hours=1)],
        ]
        for number, step in enumerate(steps):
            if isinstance(step, list):
                await room.ledger.record(step)
            else:
                assert await pruning.generations([step], now=NOON) == 1
            assert await usage_lines(room.database) == await there(room), step
            if number % 2:
                await sums.move()
                assert await usage_lines(room.database) == await there(room), step
                assert await room.rows(usage_changes) == []


async def test_what_changes_nothing_about_usage_is_not_counted(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        await room.ledger.record([submitted("one")])
        before = await room.rows(usage_changes)
        await room.ledger.record([poll("one", "queued"), submitted("one")])
        assert await room.rows(usage_changes) == before


async def test_sums_are_kept_one_row_for_an_hour_and_none_for_nothing(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        sums = UsageRollup(room.database)
        for number in range(3):
            await room.ledger.record([submitted(f"g{number}", hours=number / 4)])
            assert await sums.move() == 1
        [row] = await room.rows(usage_hours)
        assert (row["hour"], row["generations"], row["open"]) == (NOON, 3, 3)
        assert await Pruning(room.database).generations(["g0", "g1", "g2"], now=NOON) == 3
        assert await sums.move() > 0
        assert await room.rows(usage_hours) == []
        assert await sums.move() == 0


async def test_more_changes_than_one_transaction_takes_are_taken_one_after_another(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        sums = UsageRollup(room.database)
        sums.most = 2
        for number in range(5):
            await room.ledger.record([submitted(f"g{number}", hours=number)])
        pauses = [await sums.run_once() for _ in range(3)]
        assert pauses == [pauses[0], pauses[0], max(pauses)]
        assert await room.rows(usage_changes) == []
        assert await usage_lines(room.database) == await there(room)


async def test_replicas_that_sum_at_once_lose_nothing_and_double_nothing(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        databases = [Database(database_url) for _ in range(4)]
        several = [UsageRollup(database) for database in databases]
        for each in several:
            each.most = 3
        for number in range(40):
            await room.ledger.record([submitted(f"g{number}", hours=number % 3)])
            if number % 4 == 3:
                await asyncio.gather(*(each.move() for each in several))
                assert await usage_lines(room.database) == await there(room)
        for database in databases:
            await database.dispose()
