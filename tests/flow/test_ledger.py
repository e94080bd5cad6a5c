"""The record, on both databases: one effect per status, an append-only legal history, whatever the order."""

import asyncio
import itertools
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.ledger.models import Outcome, Report
from app.ledger.tables import deliveries, generations, transitions
from tests.support.clock import NOON
from tests.support.ledger_harness import LedgerHarness, open_ledger
from tests.support.reports import poll, submit, webhook

_NUMBERS = itertools.count()
_RANK = {None: -1, "queued": 0, "processing": 1, "succeeded": 2, "failed": 2}


async def test_a_second_delivery_of_the_same_event_changes_nothing_but_its_attempts(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        await room.ledger.record([webhook("g", "succeeded")])
        before = await room.rows(generations)
        again = await room.ledger.record([webhook("g", "succeeded", at=NOON + timedelta(seconds=9))])
        assert again[0].is_duplicate
        assert await room.rows(generations) == before
        assert [row["attempts"] for row in await room.rows(deliveries)] == [2]
        assert len(await room.rows(transitions)) == 1


async def test_a_batch_is_recorded_whole(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        reports = [webhook(f"g{n}", "succeeded") for n in range(50)]
        recorded = await room.ledger.record(reports)
        assert [item.generation.id for item in recorded if item.generation] == [f"g{n}" for n in range(50)]
        assert len(await room.rows(generations)) == len(await room.rows(deliveries)) == 50


async def test_what_is_read_back_is_what_was_recorded(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        await room.ledger.record([submit("g"), webhook("g", "failed", at=NOON + timedelta(microseconds=1))])
        [row] = await room.rows(generations)
        assert (row["status"], row["tracking"], row["settled_by"]) == ("failed", "settled", "webhook")
        assert row["settled_at"] == NOON + timedelta(microseconds=1)
        assert row["first_seen_at"] == NOON
        history = await room.rows(transitions)
        assert [(step["number"], step["from_status"], step["to_status"]) for step in history] == [
            (1, None, "queued"),
            (2, "queued", "failed"),
        ]


def _reports(generation_id: str) -> dict[str, Report]:
    return {
        "create": submit(generation_id),
        "processing": poll(generation_id, "processing"),
        "succeeded": webhook(generation_id, "succeeded"),
        "duplicate": webhook(generation_id, "succeeded"),
        "late failed": webhook(generation_id, "failed"),
    }


async def _assert_legal_history(room: LedgerHarness, generation_id: str) -> None:
    history = [row for row in await room.rows(transitions) if row["generation_id"] == generation_id]
    assert [row["number"] for row in history] == list(range(1, len(history) + 1))
    assert [row["from_status"] for row in history] == [None, *[row["to_status"] for row in history[:-1]]]
    assert all(_RANK[row["from_status"]] < _RANK[row["to_status"]] for row in history)
    [row] = [row for row in await room.rows(generations) if row["id"] == generation_id]
    assert history[-1]["to_status"] == row["status"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(["create", "processing", "succeeded", "duplicate", "late failed"]), data=st.data())
def test_every_order_of_reports_ends_in_the_outcome_that_came_first_with_a_legal_history(
    database_url: str, order: list[str], data: st.DataObject
) -> None:
    generation_id = f"g{next(_NUMBERS)}"
    cuts = data.draw(st.lists(st.booleans(), min_size=len(order), max_size=len(order)), label="new batch before")

    async def run() -> None:
        async with open_ledger(database_url) as room:
            batch: list[Report] = []
            for name, is_cut in zip(order, cuts, strict=True):
                if is_cut and batch:
                    await room.ledger.record(batch)
                    batch = []
                batch.append(_reports(generation_id)[name])
            await room.ledger.record(batch)
            await _assert_legal_history(room, generation_id)
            [row] = [row for row in await room.rows(generations) if row["id"] == generation_id]
            first = "failed" if order.index("late failed") < _first_success(order) else "succeeded"
            assert row["status"] == first
            stored = {r["event_id"]: r for r in await room.rows(deliveries) if r["generation_id"] == generation_id}
            assert stored[f"evt_{generation_id}_succeeded"]["attempts"] == 2
            loser = "succeeded" if first == "failed" else "failed"
            assert stored[f"evt_{generation_id}_{loser}"]["outcome"] == "conflict"

    asyncio.run(run())


def _first_success(order: list[str]) -> int:
    return min(order.index("succeeded"), order.index("duplicate"))


async def test_an_event_id_that_comes_with_another_content_is_kept_as_a_delivery_of_its_own(database_url: str) -> None:
    async with open_ledger(database_url) as room:
        first, other = webhook("g", "succeeded", event_id="evt"), webhook("other", "failed", event_id="evt")
        await room.ledger.record([submit("g")])
        outcomes = [(await room.ledger.record([report]))[0] for report in (first, other, first, other)]
        assert [(item.outcome, item.is_duplicate) for item in outcomes] == [
            *((Outcome.APPLIED, False), (Outcome.APPLIED, False), (Outcome.APPLIED, True), (Outcome.APPLIED, True)),
        ]
        stored = {row["generation_id"]: row for row in await room.rows(deliveries)}
        assert stored["g"]["event_id"] == "evt"
        assert stored["other"]["event_id"].startswith("evt:")
        assert [row["attempts"] for row in stored.values()] == [2, 2]
        assert {row["id"]: row["status"] for row in await room.rows(generations)} == {
            "g": "succeeded",
            "other": "failed",
        }
        history = [step["event_id"] for step in await room.rows(transitions) if step["generation_id"] == "other"]
        assert history == [stored["other"]["event_id"]]
