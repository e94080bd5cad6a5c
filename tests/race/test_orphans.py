"""No row is left without its generation, and no open generation without its row of polls, whoever removes what when."""

import asyncio
import itertools

from app.ledger.tables import deliveries, generations, transitions
from app.operations.retention import Pruning
from tests.support.clock import NOON
from tests.support.ledger_harness import LedgerHarness, open_ledger
from tests.support.reports import poll, submit, webhook

ROUNDS = 15
IDS = [f"g{number}" for number in range(8)]


async def test_reports_and_removals_that_race_leave_no_orphan(database_url: str) -> None:
    async with open_ledger(database_url) as one, open_ledger(database_url) as other:
        pruning = Pruning(other.database)
        for number in range(ROUNDS):
            events = itertools.count(number * 1000)
            await asyncio.gather(
                one.ledger.record([submit(it) for it in IDS]),
                other.ledger.record([webhook(it, "succeeded", event_id=f"evt_{next(events)}") for it in reversed(IDS)]),
                pruning.generations(IDS[: number % 8], now=NOON),
                one.ledger.record([poll(it, "processing") for it in IDS[2:]]),
                pruning.generations(IDS[4:], now=NOON),
            )
            await _has_no_orphans(one)


async def _has_no_orphans(room: LedgerHarness) -> None:
    known = {row["id"]: row for row in await room.rows(generations)}  # compares polls with what is open
    steps = await room.rows(transitions)
    assert {step["generation_id"] for step in steps} == known.keys()
    applied = {step["event_id"] for step in steps}
    for row in await room.rows(deliveries):
        is_pruned = row["body_pruned_at"] is not None
        assert is_pruned or row["outcome"] != "applied" or row["event_id"] in applied
        assert is_pruned or row["generation_id"] in known
