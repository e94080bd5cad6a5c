"""`rivya-receiver deliveries replay`: stored bytes through the same ledger, said before it is done, audited."""

from datetime import datetime, timedelta
from pathlib import Path

import orjson
import pytest

from app.cli import operations
from app.core.errors import DatabaseUnavailable
from app.ledger.models import Delivery, DeliveryFilter, Outcome, Report, Source
from app.ledger.tables import deliveries, generations, transitions
from tests.support.clock import NOON
from tests.support.commands import Ended, command
from tests.support.ledger_harness import LedgerHarness, open_ledger
from tests.support.operations_harness import NOBODY, at_desk
from tests.support.receivers import environment
from tests.support.reports import submit

Capture = pytest.CaptureFixture[str]
MINUTE = timedelta(minutes=1)


async def replay(url: str, chosen: DeliveryFilter, capsys: Capture, *, applies: bool = False) -> list[str]:
    """What the command says."""
    capsys.readouterr()
    async with at_desk(url) as desk:
        await operations.replay(desk, chosen, writes=applies)
    return [line for line in capsys.readouterr().out.splitlines() if "[info" not in line]


async def run(words: str, url: str, directory: Path) -> Ended:
    return await command(f"deliveries replay {words}".strip(), environment(NOBODY, url, 1), directory)


def stored(
    event_id: str, status: str | None, *, at: datetime = NOON, stored_outcome: Outcome = Outcome.UNREADABLE
) -> Report:
    """A delivery that an older version could not read; its body is a callback of generation g with this status."""
    generation = {} if status is None else {"data": {"id": "g", "status": status, "result": None}}
    body = orjson.dumps({"id": event_id, "type": f"generation.{status}", **generation})
    delivery = Delivery(
        event_id=event_id,
        event_type=None,
        endpoint_id=None,
        received_at=at,
        body=body,
        headers={},
        stored_outcome=stored_outcome,
    )
    return Report(source=Source.WEBHOOK, reported_at=at, delivery=delivery)


async def steps(room: LedgerHarness) -> list[tuple[str | None, str, str, str | None]]:
    rows = await room.rows(transitions)
    return [(row["from_status"], row["to_status"], row["source"], row["event_id"]) for row in rows]


async def test_a_replay_says_what_it_would_do_and_does_it_when_told_to(database_url: str, capsys: Capture) -> None:
    async with open_ledger(database_url) as room:
        await room.ledger.record([submit("g"), stored("evt_1", "succeeded")])
        before = await room.rows(deliveries)
        chosen = DeliveryFilter(event_id="evt_1")

        assert await replay(database_url, chosen, capsys) == [
            "evt_1: was unreadable, applied: generation g queued -> succeeded",
            "would be: 1 applied; nothing was written, --apply writes",
        ]
        assert await steps(room) == [(None, "queued", "submit", None)]

        assert (await replay(database_url, chosen, capsys, applies=True))[-1] == "replayed: 1 applied"
        assert (await steps(room))[1:] == [("queued", "succeeded", "operator", "evt_1")]
        [settled] = await room.rows(generations)
        assert (settled["status"], settled["settled_by"], settled["next_poll_at"]) == ("succeeded", "operator", None)
        assert await room.rows(deliveries) == before

        assert (await replay(database_url, chosen, capsys, applies=True))[-1] == "replayed: 1 stale"
        assert len(await steps(room)) == 2


async def test_deliveries_are_chosen_by_time_and_outcome_and_replayed_oldest_first(
    database_url: str, capsys: Capture
) -> None:
    async with open_ledger(database_url) as room:
        await room.ledger.record(
            [
                stored("evt_z", "failed", at=NOON),
                stored("evt_a", "succeeded", at=NOON + MINUTE),
                stored("evt_other", "succeeded", at=NOON, stored_outcome=Outcome.TEST),
                stored("evt_late", "succeeded", at=NOON + 5 * MINUTE),
                stored("evt_says_nothing", None, at=NOON + MINUTE),
            ]
        )
        chosen = DeliveryFilter(received_after=NOON, received_before=NOON + 5 * MINUTE, outcome=Outcome.UNREADABLE)
        output = await replay(database_url, chosen, capsys)
        assert output == [
            "evt_z: was unreadable, applied: generation g unknown -> failed",
            "evt_a: was unreadable, conflict: generation g stays as it is",
            "evt_says_nothing: was unreadable, skipped: it has no status of a generation",
            "would be: 1 applied, 1 conflict, 1 skipped; nothing was written, --apply writes",
        ]
        assert (await replay(database_url, chosen, capsys, applies=True))[:3] == output[:3]
        assert [step[3] for step in await steps(room)] == ["evt_z"]


async def test_more_than_one_page_is_replayed(sqlite_url: str, capsys: Capture) -> None:
    async with open_ledger(sqlite_url) as room:
        await room.ledger.record([stored(f"evt_{n}", "succeeded") for n in range(205)])
        output = await replay(sqlite_url, DeliveryFilter(received_after=NOON), capsys)
        assert output[-1].startswith("would be: 1 applied, 204 stale")


async def test_a_delivery_whose_body_was_pruned_is_skipped(sqlite_url: str, capsys: Capture) -> None:
    async with open_ledger(sqlite_url) as room:
        await room.ledger.record([stored("evt_1", "succeeded")])
        async with room.database.transaction() as connection:
            await connection.execute(deliveries.update().values(body=b"", body_pruned_at=NOON))
        output = await replay(sqlite_url, DeliveryFilter(event_id="evt_1"), capsys, applies=True)
        assert output[0] == "evt_1: was unreadable, skipped: its body was pruned"
        assert await steps(room) == []


async def test_an_event_that_never_came_is_told(sqlite_url: str, capsys: Capture) -> None:
    async with at_desk(sqlite_url) as desk:
        assert not await operations.replay(desk, DeliveryFilter(event_id="evt_nobody"), writes=False)
    assert capsys.readouterr().err == "no stored delivery is chosen by that\n"


async def test_a_database_without_our_tables_is_not_now(empty_database_url: str, capsys: Capture) -> None:
    with pytest.raises(DatabaseUnavailable):
        await replay(empty_database_url, DeliveryFilter(event_id="evt_1"), capsys)


async def test_the_command_rehearses_unless_it_is_told_to_apply(sqlite_url: str, tmp_path: Path) -> None:
    async with open_ledger(sqlite_url) as room:
        await room.ledger.record([submit("g"), stored("evt_1", "succeeded")])
        output = await run("--since 2026-05-10T12:00:00Z --outcome unreadable", sqlite_url, tmp_path)
        assert (output.status, output.output.splitlines()[-1]) == (
            0,
            "would be: 1 applied; nothing was written, --apply writes",
        )
        assert len(await steps(room)) == 1
        done = await run("evt_1 --apply", sqlite_url, tmp_path)
        assert (done.status, done.output.splitlines()[-1]) == (0, "replayed: 1 applied")
        assert "delivery.replayed" in done.errors
        assert len(await steps(room)) == 2


async def test_what_can_not_be_meant_is_refused_in_words(sqlite_url: str, tmp_path: Path) -> None:
    nothing = await run("", sqlite_url, tmp_path)
    assert (nothing.status, "EVENT_ID" in nothing.errors) == (2, True)
    no_time = await run("--since yesterday", sqlite_url, tmp_path)
    assert (no_time.status, "2026-05-11T00:00:00Z" in no_time.errors) == (2, True)


async def test_a_database_that_is_not_there_is_named(tmp_path: Path) -> None:
    ended = await run("evt_1", f"sqlite+aiosqlite:///{tmp_path}/none.db", tmp_path)
    assert ended.status == 1
    assert ended.errors.startswith("DATABASE_URL: ")
    assert not (tmp_path / "none.db").exists()
