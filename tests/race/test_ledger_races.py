"""The record under real concurrency: many connections, one effect."""

import asyncio

import pytest

from app.core.clock import SystemClock
from app.ledger.tables import deliveries, generations, transitions
from app.ledger.write_queue import WriteQueue
from tests.support.ledger_harness import open_ledger
from tests.support.reports import poll, submit, webhook


async def test_200_concurrent_deliveries_of_one_event_on_two_connections_are_one_row(database_url: str) -> None:
    async with open_ledger(database_url) as one, open_ledger(database_url) as other:
        batches = [WriteQueue(room.ledger, SystemClock(), most_at_once=7) for room in (one, other)]
        for batch in batches:
            await batch.start()
        await asyncio.gather(*(batches[n % 2].record(webhook("g", "succeeded")) for n in range(200)))
        for batch in batches:
            await batch.stop()
        assert [row["attempts"] for row in await one.rows(deliveries)] == [200]
        assert len(await one.rows(transitions)) == 1
        assert len(await one.rows(generations)) == 1


@pytest.mark.parametrize("batch_size", [1, 5])
async def test_webhook_poll_and_create_racing_over_replicas_leave_one_legal_history_each(
    database_url: str, batch_size: int
) -> None:
    ids = [f"g{n}" for n in range(20)]
    async with open_ledger(database_url) as one, open_ledger(database_url) as other:
        sources = [
            (one, [submit(i) for i in ids]),
            (other, [webhook(i, "succeeded") for i in reversed(ids)]),
            (one, [poll(i, "processing") for i in ids]),
            (other, [webhook(i, "failed") for i in ids]),
        ]
        await asyncio.gather(
            *(
                room.ledger.record(reports[start : start + batch_size])
                for room, reports in sources
                for start in range(0, len(ids), batch_size)
            )
        )
        rows = await one.rows(generations)
        assert {row["id"] for row in rows} == set(ids)
        for row in rows:
            history = [step for step in await one.rows(transitions) if step["generation_id"] == row["id"]]
            assert [step["number"] for step in history] == list(range(1, len(history) + 1))
            assert sum(step["to_status"] in ("succeeded", "failed") for step in history) == 1
            assert history[-1]["to_status"] == row["status"]


async def test_the_same_batch_on_two_replicas_in_opposite_order_never_becomes_a_circle(database_url: str) -> None:
    """All of it is new: whoever is second waits for the first, and never the other way round too."""
    async with open_ledger(database_url) as one, open_ledger(database_url) as other:
        for number in range(20):
            ids = [f"g{number}-{n:02}" for n in range(60)]
            there, back = [webhook(i, "succeeded") for i in ids], [webhook(i, "succeeded") for i in reversed(ids)]
            both = await asyncio.gather(one.ledger.record(there), other.ledger.record(back))
            assert sorted(item.is_duplicate for recorded in both for item in recorded) == [False] * 60 + [True] * 60
        assert len(await one.rows(transitions)) == 20 * 60
