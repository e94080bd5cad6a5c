"""Whether one statement settles generations or they are read first: what is stored is the same."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from app.core.database import Database
from app.core.drivers import RawPostgres
from app.fastpath.settlement import SettlingRecord
from app.ledger.decide import Recorded
from app.ledger.models import Report
from app.ledger.postgres import PostgresRecord
from app.ledger.recorder import Changes, Recorder
from app.ledger.tables import deliveries, generations, transitions, usage_changes
from tests.support.clock import NOON
from tests.support.databases import PostgresDatabases
from tests.support.ledger_harness import first_poll
from tests.support.reports import poll, submit, webhook
from tests.support.rows import table_rows

LATER = NOON + timedelta(minutes=2)
_OWN = ("id", "feed_position")
"""Columns that count what was inserted into one database."""


@dataclass(frozen=True)
class Case:
    """Callbacks, what was recorded before them, and whether one statement can settle them."""

    callbacks: Sequence[Report]
    before: Sequence[Report] = (submit("g"),)
    is_settled_at_once: bool = True


def claiming(report: Report, **members: Any) -> Report:
    assert report.claim is not None
    return replace(report, claim=replace(report.claim, **members))


def delivered(generation_id: str = "g", status: str = "succeeded", **members: Any) -> Report:
    report = webhook(generation_id, status, at=LATER)
    assert report.claim is not None
    assert report.delivery is not None
    body = json.dumps({"of": generation_id}).encode()
    delivery = replace(report.delivery, body=body, headers={"user-agent": 'R/"1"'}, endpoint_id="e")
    return replace(report, claim=replace(report.claim, **members), delivery=delivery)


CREDITS: dict[str, Any] = {"reserved_credits": 3, "final_credits": 2.5}
TIMES: dict[str, Any] = {"created_at": NOON - timedelta(hours=1), "updated_at": NOON}
LARGER: dict[str, Any] = {"id": "g", "status": "succeeded", "result": {"urls": ["https://a/ü\\", 'b"']}, "error": None}
CASES = {
    "succeeded": Case([delivered()]),
    "failed": Case([delivered(status="failed")]),
    "with credits and times": Case([delivered(**CREDITS, **TIMES)]),
    "credits were known": Case([delivered(final_credits=0)], [claiming(submit("g"), **CREDITS, **TIMES)]),
    "a larger object": Case([delivered(object=LARGER)]),
    "an object that lacks a member": Case(
        [delivered()], [claiming(submit("g"), object={**LARGER, "status": "queued"})], is_settled_at_once=False
    ),
    "a reference that was not known": Case(
        [delivered(client_request_id="order-2")], [replace(submit("g"), client_request_id=None)]
    ),
    "a reference that was known": Case([delivered(client_request_id="order-2")]),
    "the same model": Case([delivered(model="m")], [claiming(submit("g"), model="m")]),
    "another model": Case([delivered(model="m", **CREDITS)], [claiming(submit("g"), model="n", final_credits=1)]),
    "no model before": Case([delivered(model="m")]),
    "a model before": Case([delivered()], [claiming(submit("g"), model="m")]),
    "an owner": Case([delivered(**CREDITS)], [replace(submit("g"), token="t")]),
    "polled before": Case([delivered()], [submit("g"), poll("g", "processing", at=NOON)]),
    "processing by a callback before": Case([delivered()], [submit("g"), webhook("g", "processing")]),
    "many": Case(
        [delivered(f"g{n}", "failed" if n % 3 else "succeeded", **CREDITS) for n in (4, 1, 9, 2, 0, 7)],
        [submit(f"g{n}", at=NOON + n * timedelta(minutes=20)) for n in range(10)],
    ),
    "unknown": Case([delivered("h")], is_settled_at_once=False),
    "one of two unknown": Case([delivered("h"), delivered()], is_settled_at_once=False),
    "settled before": Case([delivered(status="failed")], [webhook("g", "succeeded")], is_settled_at_once=False),
    "repeated": Case([delivered()], [submit("g"), webhook("g", "succeeded")], is_settled_at_once=False),
    "the id of another event": Case(
        [delivered()],
        [submit("g"), webhook("other", "failed", event_id="evt_g_succeeded")],
        is_settled_at_once=False,
    ),
    "twice in one batch": Case([delivered(), delivered()], is_settled_at_once=False),
    "two outcomes in one batch": Case([delivered(), delivered(status="failed")], is_settled_at_once=False),
    "not final": Case([delivered(status="processing")], is_settled_at_once=False),
    "found by a poll": Case([poll("g", "succeeded", at=LATER)], is_settled_at_once=False),
    "nothing": Case([], is_settled_at_once=False),
}


@pytest.fixture
def other_postgres_url(postgres_databases: PostgresDatabases) -> Iterator[str]:
    url = postgres_databases.migrated()
    yield url
    postgres_databases.drop(url)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
async def test_one_statement_stores_what_reading_and_deciding_stores(
    case: Case, postgres_url: str, other_postgres_url: str
) -> None:
    by_reading, expected = await _recorded(postgres_url, case, PostgresRecord)
    at_once, stored = await _recorded(other_postgres_url, case, SettlingRecord)
    assert stored == expected
    assert [(it.outcome, it.transition, it.is_duplicate) for it in at_once] == [
        (it.outcome, it.transition, it.is_duplicate) for it in by_reading
    ]
    # What was read and decided has the generation, too: nobody asks for it after a callback.
    assert all(it.generation is None for it in at_once if it.transition is not None) == (
        case.is_settled_at_once or not any(it.transition for it in at_once)
    )


async def _recorded(
    url: str, case: Case, store: Callable[[RawPostgres], PostgresRecord]
) -> tuple[list[Recorded], dict[str, list[dict[str, Any]]]]:
    database = Database(url)
    for report in case.before:
        await Recorder(database, first_poll=first_poll, changes=Changes()).record([report])
    recorder = Recorder(database, first_poll=first_poll, changes=Changes(), on_postgres=store)
    recorded = await recorder.record(case.callbacks)
    tables = {
        table.name: sorted((_comparable(row) for row in await table_rows(database, table)), key=repr)
        for table in (generations, transitions, deliveries, usage_changes)
    }
    await database.dispose()
    return recorded, tables


def _comparable(row: dict[str, Any]) -> dict[str, Any]:
    """Without numbers of the database's own, and with an object whose members have no order."""
    values = {name: value for name, value in row.items() if name not in _OWN or isinstance(value, str)}
    return {**values, **({"rivya_object": json.loads(row["rivya_object"])} if "rivya_object" in row else {})}


async def test_after_a_batch_that_does_not_fit_the_next_ones_are_read_until_one_fits(postgres_url: str) -> None:
    database = Database(postgres_url)
    recorder = Recorder(database, first_poll=first_poll, changes=Changes(), on_postgres=SettlingRecord)
    await recorder.record([submit(f"g{n}") for n in range(3)])
    ways = []
    for generation_id in ("unknown", "g0", "g1", "g2"):
        [recorded] = await recorder.record([delivered(generation_id)])
        ways.append("read" if recorded.generation is not None else "at once")
    assert ways == ["read", "read", "at once", "at once"]
    await database.dispose()


async def test_a_generation_that_another_writer_changes_meanwhile_is_decided_anew(postgres_url: str) -> None:
    """The other writer holds the row until this one waits for it: its revision is then another than was read."""
    database, direct = Database(postgres_url), Database(postgres_url).direct
    assert isinstance(direct, RawPostgres)
    recorder = Recorder(database, first_poll=first_poll, changes=Changes(), on_postgres=SettlingRecord)
    await recorder.record([submit("g")])
    async with direct.transaction() as connection:
        await connection.execute("UPDATE generations SET model = 'm', revision = revision + 1 WHERE id = 'g'")
        waiting = asyncio.create_task(recorder.record([delivered()]))
        while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0)
    [recorded] = await waiting
    [row] = await table_rows(database, generations)
    assert (row["status"], row["model"], row["revision"]) == ("succeeded", "m", 3)
    assert recorded.generation is not None
    assert [it["attempts"] for it in await table_rows(database, deliveries)] == [1]
    await direct.close()
    await database.dispose()


async def test_a_value_that_cannot_be_stored_is_named_by_the_way_that_reads(postgres_url: str) -> None:
    database = Database(postgres_url)
    recorder = Recorder(database, first_poll=first_poll, changes=Changes(), on_postgres=SettlingRecord)
    await recorder.record([submit("g")])
    poisoned = claiming(delivered(), client_request_id="\x00")
    with pytest.raises(asyncpg.DataError):
        await recorder.record([poisoned])
    assert await table_rows(database, deliveries) == []
    await recorder.record([delivered()])
    await database.dispose()
