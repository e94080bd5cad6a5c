"""PostgreSQL's processor time to settle known generations, against the tables and statements of release 0.1."""

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.core.database import Database
from app.core.drivers import RawPostgres
from app.fastpath.settlement import SettlingRecord
from app.intake.webhook import parse_delivery
from app.ledger.models import Report
from app.ledger.recorder import Changes, Recorder
from app.ledger.rows import dump_json
from bench import events
from bench.fill import fill_open
from bench.machine import family_cpu_seconds
from bench.results import Results, spread
from bench.world import World, on_postgres

PAIRS = 7
SETTLED = 4000
"""Generations for each measurement; their callbacks come in any order."""
BATCH = 20
"""Deliveries for each commit: what a process commits at once with 64 connections."""
_TABLES = Path(__file__).with_suffix(".sql")
_G = (
    *("id", "first_seen_at", "model", "reserved_credits", "final_credits", "created_at", "updated_at"),
    *("client_request_id", "submitted_by", "settled_at", "callback_received_at", "last_number", "revision"),
    *("next_poll_at", "lease_until", "polls", "poll_failures", "last_poll_error", "not_found_count"),
    *("not_found_since", "status", "tracking", "settled_by", "rivya_object", "metadata"),
)
_TYPES = {
    **dict.fromkeys(("reserved_credits", "final_credits"), "float8"),
    **dict.fromkeys(("polls", "poll_failures", "not_found_count", "attempts"), "int"),
    **dict.fromkeys(("last_number", "number"), "smallint"),
    "revision": "int + 1",
    **{name: "timestamptz" for name in (*_G, "received_at", "occurred_at", "recorded_at") if name.endswith("_at")},
    **dict.fromkeys(("lease_until", "not_found_since"), "timestamptz"),
}
_T = ("generation_id", "number", "from_status", "to_status", "source", "event_id", "occurred_at", "recorded_at")
_D = ("event_id", "event_type", "endpoint_id", "received_at", "body", "headers", "generation_id", "outcome", "attempts")
_NOTHING = ", ".join(f"NULL::{_TYPES.get(name, 'text').partition(' ')[0]}" for name in _G)
LOOK = f"""
SELECT {", ".join(_G)}, NULL::text AS known_event_id, NULL::text AS known_outcome FROM generations
WHERE id = ANY($1::text[]) UNION ALL
SELECT {_NOTHING}, event_id, outcome FROM deliveries WHERE event_id = ANY($2::text[])
"""  # noqa: S608


def _rows(columns: Sequence[str], place: int) -> str:
    values = [f"(row ->> {number})::{_TYPES.get(name, 'text')}" for number, name in enumerate(columns)]
    if columns is _D:
        body = _D.index("body")
        values[body] = f"substring($4::bytea, (row ->> {body})::int, (row ->> {len(_D)})::int)"
    return f"({', '.join(columns)}) SELECT {', '.join(values)} FROM jsonb_array_elements(${place}::jsonb) AS row"  # noqa: S608


_CHANGED = ", ".join(f"{name} = excluded.{name}" for name in _G if name not in ("id", "first_seen_at"))
WRITE = f"""
WITH written AS (
    INSERT INTO generations {_rows(_G, 1)}
    ON CONFLICT (id) DO UPDATE SET {_CHANGED} WHERE generations.revision = excluded.revision - 1
    RETURNING (xmax = 0) = (revision = 1) AS is_as_it_was
), delivered AS (
    INSERT INTO deliveries {_rows(_D, 2)}
    ON CONFLICT (event_id) DO UPDATE SET attempts = deliveries.attempts + excluded.attempts
), moved AS (
    INSERT INTO transitions {_rows(_T, 3)}
)
SELECT 1 / (count(*) FILTER (WHERE is_as_it_was) = $5::bigint)::int FROM written
"""  # noqa: S608


def run(world: World, results: Results) -> None:
    """Both settle the same generations in turns, each in a database of its own."""
    ours, theirs = world.fresh("postgresql"), world.postgres.empty()
    on_postgres(theirs, lambda connection: connection.execute(_TABLES.read_text()))
    last = (PAIRS + 1) * SETTLED
    fill_open(ours, first=1, last=last)
    fill_open(theirs, first=1, last=last, is_release_0_1=True)
    costs = asyncio.run(_compare(world, ours, theirs))
    world.drop(ours)
    world.drop(theirs)
    ratios = [after / before for after, before in costs]
    results.add(
        "PostgreSQL's processor time for each known delivery, against release 0.1",
        target="≤ 0.50",
        measured=f"{spread(ratios, '.2f')} ({statistics.median(after for after, _ in costs) * 1e6:.0f} µs against "
        f"{statistics.median(before for _, before in costs) * 1e6:.0f} µs, {BATCH} for each commit)",
        is_reached=statistics.median(ratios) <= 0.5,
    )


async def _compare(world: World, ours: str, theirs: str) -> list[tuple[float, float]]:
    """Seconds of processor time for each settlement, ours and theirs."""
    new, old = Database(ours), Database(theirs)
    recorder = Recorder(
        new, first_poll=lambda _, now: now + timedelta(minutes=1), changes=Changes(), on_postgres=SettlingRecord
    )
    direct = old.direct
    assert isinstance(direct, RawPostgres)

    async def record_old(reports: Sequence[Report]) -> None:
        await _record(direct, reports)

    costs, order = [], random.Random(1)  # noqa: S311 - the order of callbacks, not a secret
    for number in range(PAIRS + 1):
        came = reports(number * SETTLED + 1)
        order.shuffle(came)
        costs.append(
            (await _cost(world, came, recorder.commit), await _cost(world, came, record_old)),
        )
    await new.dispose()
    await old.dispose()
    return costs[1:]


def reports(first: int) -> list[Report]:
    """Callbacks of `SETTLED` open generations, from this one on."""
    batch = events.about(f"old{first}", [f"task_{first + number}" for number in range(SETTLED)], failed_each=10)
    headers = [(b"content-type", b"application/json"), (b"rivya-signature", b"t=1700000000,v1=" + b"0" * 64)]
    bodies = [request.partition(b"\r\n\r\n")[2] for request in batch.requests]
    now = datetime.now(UTC)
    return [parse_delivery(body, headers, header_id=None, endpoint_id="endpoint", now=now) for body in bodies]


async def _cost(
    world: World, reports: Sequence[Report], record: Callable[[Sequence[Report]], Awaitable[object]]
) -> float:
    used = family_cpu_seconds(world.cluster.pid)
    for begin in range(0, len(reports), BATCH):
        await record(reports[begin : begin + BATCH])
    return (family_cpu_seconds(world.cluster.pid) - used) / len(reports)


async def _record(direct: RawPostgres, reports: Sequence[Report]) -> None:
    """What release 0.1 read and wrote for the first callback of each of these known, queued generations."""
    event_ids = [str(report.event_id) for report in reports]
    stored = {row["id"]: row for row in await direct.fetch(LOOK, [str(it.generation_id) for it in reports], event_ids)}
    generations, deliveries, transitions, bodies = [], [], [], bytearray()
    for report in sorted(reports, key=lambda it: str(it.generation_id)):
        claim, delivery, now = report.claim, report.delivery, report.reported_at
        assert claim is not None
        assert delivery is not None
        values = {
            **{name: getattr(claim, name) for name in ("final_credits", "created_at", "updated_at", "status")},
            "settled_at": now,
            "callback_received_at": now,
            "last_number": 2,
            "next_poll_at": None,
            "tracking": "settled",
            "settled_by": "webhook",
            "rivya_object": dump_json(claim.object),
        }
        row = stored[claim.id]
        generations.append([values.get(name, row[name]) for name in _G])
        event = (delivery.event_id, delivery.event_type, delivery.endpoint_id, now, len(bodies) + 1)
        deliveries.append((*event, dump_json(delivery.headers), claim.id, "applied", 1, len(delivery.body)))
        bodies += delivery.body
        moved = (row["status"], claim.status, "webhook", delivery.event_id, claim.updated_at, now)
        transitions.append((claim.id, 2, *moved))
    deliveries.sort()
    written = (dump_json(generations), dump_json(deliveries), dump_json(transitions), bytes(bodies))
    await direct.fetch(WRITE, *written, len(generations))
