"""The fast path of recording on PostgreSQL: callbacks that settle open generations, written without reading them first.

`PostgresRecord` reads what is stored, decides in Python, and writes: two round trips. For the most frequent batch the
decision is the same for all its reports, so here one statement makes it. With 64 connections that saved 21 and
32 % of the server's processor time for each delivery, and 0 and 16 % of PostgreSQL's, in two measurements of pairs on
a machine with other load. `RECEIVER_FAST_PATH=false` turns it off.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from app.core.drivers import RawPostgres
from app.core.models import Claim
from app.ledger.decide import Decide, Plan, Recorded
from app.ledger.models import Delivery, Outcome, Report, Source, Status, Transition
from app.ledger.postgres import AHEAD, VALUE_ERRORS, PostgresRecord, map_conflicts
from app.ledger.rows import dump_json

_STATUSES: Final = {status.value: status for status in Status}
_FINAL: Final = frozenset(status.value for status in Status if status.is_terminal)

Callback = tuple[Claim, Delivery, datetime]
"""What Rivya claims, the delivery, and when it was reported."""


class SettlingRecord(PostgresRecord):
    """A `PostgresRecord` that tries `SETTLE` first while the batches are such that it fits."""

    def __init__(self, direct: RawPostgres) -> None:
        super().__init__(direct)
        self._expects_open = True
        """The last batch could be written by `SETTLE`."""

    async def record(self, reports: Sequence[Report], decide: Decide) -> Plan:
        """Like `PostgresRecord.record`, in one round trip for callbacks of open generations."""
        if self._expects_open:
            callbacks = final_callbacks(reports)
            recorded = await self._settle(callbacks) if callbacks else None
            if recorded is not None:
                return Plan(recorded)
        plan = await super().record(reports, decide)
        self._expects_open = was_open(plan)
        return plan

    async def _settle(self, callbacks: Sequence[Callback]) -> list[Recorded] | None:
        """The results; None, and nothing written, if one of the generations or events is not as `SETTLE` needs it.

        Raises `WriteConflict`, also for a value that can't be stored, and `DatabaseUnavailable`; nothing is written
        then.
        """
        with map_conflicts(VALUE_ERRORS):
            [row] = await self._direct.fetch(SETTLE, *arguments(callbacks), len(callbacks))
        if row["ids"] is None:
            return None
        before = dict(zip(row["ids"], zip(row["numbers"], row["statuses"], strict=True), strict=True))
        return [_recorded(it, *before[it[0].id]) for it in callbacks]


def final_callbacks(reports: Sequence[Report]) -> list[Callback]:
    """`reports` if each is a callback with a final status, and no two are about the same generation or event."""
    callbacks, generations, events = [], set[str](), set[str]()
    for report in reports:
        claim, delivery = report.claim, report.delivery
        if claim is None or delivery is None or claim.status not in _FINAL or report.source is not Source.WEBHOOK:
            return []
        callbacks.append((claim, delivery, report.reported_at))
        generations.add(claim.id)
        events.add(delivery.event_id)
    return callbacks if len(callbacks) == len(generations) == len(events) else []


def was_open(plan: Plan) -> bool:
    """Whether all that `plan` writes are settlements that `SETTLE` could have written."""
    rows = plan.generations.values()
    return len(rows) == len(plan.deliveries) == len(plan.recorded) and all(
        (before := row.stored) is not None
        and before.settled_at is None
        and row.generation.settled_at is not None
        and len(row.generation.rivya_object) == len(row.report.claim.object if row.report.claim is not None else ())
        for row in rows
    )


def arguments(callbacks: Iterable[Callback]) -> tuple[str, bytes, list[str]]:
    """The rows of `SETTLE` as JSON, ordered by generation; all bodies; the members that every object has."""
    ordered = sorted(callbacks, key=lambda it: it[0].id)
    rows, bodies = [], bytearray()
    for claim, delivery, reported_at in ordered:
        rows.append(
            (
                *(claim.id, delivery.event_id, claim.status, reported_at, dump_json(claim.object), claim.model),
                *(claim.reserved_credits, claim.final_credits, claim.created_at, claim.updated_at),
                *(claim.client_request_id, delivery.event_type, delivery.endpoint_id, delivery.received_at),
                *(dump_json(delivery.headers), len(bodies) + 1, len(delivery.body)),
            )
        )
        bodies += delivery.body
    names = set(ordered[0][0].object).intersection(*(claim.object for claim, _, _ in ordered))
    return dump_json(rows), bytes(bodies), list(names)


def _recorded(callback: Callback, number: int, from_status: str) -> Recorded:
    claim, delivery, reported_at = callback
    transition = Transition(
        generation_id=claim.id,
        number=number,
        from_status=_STATUSES[from_status],
        to_status=_STATUSES[claim.status],
        source=Source.WEBHOOK,
        event_id=delivery.event_id,
        occurred_at=claim.updated_at,
        recorded_at=reported_at,
    )
    return Recorded(Outcome.APPLIED, transition=transition)


# Reads first whether all generations are open and no event is known, and writes nothing otherwise. As in
# `app.ledger.postgres`, a generation that another writer changes meanwhile fails the statement by a division by zero.
SETTLE: Final = f"""
WITH open AS MATERIALIZED (
    SELECT g.id, g.revision, g.status AS from_status, p.polls, row,
        g.model AS old_model, g.reserved_credits AS old_reserved, g.final_credits AS old_final
    FROM jsonb_array_elements($1::jsonb) AS row
    JOIN generations AS g ON g.id = row ->> 0 AND g.settled_at IS NULL
        AND g.rivya_object::jsonb - $3::text[] = '{{}}'
    JOIN polls AS p ON p.generation_id = row ->> 0
    WHERE NOT EXISTS (SELECT FROM deliveries AS d WHERE d.event_id = row ->> 1)
), whole AS MATERIALIZED (
    SELECT $4::bigint AS expected FROM open HAVING count(*) = $4::bigint
), changed AS (
    UPDATE generations AS g SET
        status = row ->> 2,
        settled_at = (row ->> 3)::timestamptz,
        settled_by = 'webhook',
        failed_at = CASE row ->> 2 WHEN 'failed' THEN (row ->> 3)::timestamptz END,
        rivya_object = row ->> 4,
        model = coalesce(row ->> 5, g.model),
        reserved_credits = coalesce((row ->> 6)::float8, g.reserved_credits),
        final_credits = coalesce((row ->> 7)::float8, g.final_credits),
        created_at = coalesce((row ->> 8)::timestamptz, g.created_at),
        updated_at = coalesce((row ->> 9)::timestamptz, g.updated_at),
        client_request_id = coalesce(g.client_request_id, row ->> 10),
        callback_received_at = coalesce(g.callback_received_at, (row ->> 3)::timestamptz),
        polls = open.polls,
        last_number = g.last_number + 1,
        revision = g.revision + 1
    FROM open, whole WHERE g.id = open.id AND g.revision = open.revision
    RETURNING g.id, g.last_number, from_status, row, g.first_seen_at, g.submitted_by, g.model, g.reserved_credits,
        g.final_credits, old_model, old_reserved, old_final
), closed AS (
    DELETE FROM polls USING changed WHERE polls.generation_id = changed.id
), delivered AS (
    INSERT INTO deliveries
        (event_id, event_type, generation_id, endpoint_id, received_at, outcome, attempts, headers, body)
    SELECT row ->> 1, row ->> 11, id, row ->> 12, (row ->> 13)::timestamptz, 'applied', 1, row ->> 14,
        substring($2::bytea, (row ->> 15)::int, (row ->> 16)::int)
    FROM changed
), {AHEAD}, moved AS (
    INSERT INTO transitions
        (generation_id, number, from_status, to_status, source, event_id, occurred_at, recorded_at)
    SELECT id, last_number, from_status, row ->> 2, 'webhook', row ->> 1,
        (row ->> 9)::timestamptz, (row ->> 3)::timestamptz
    FROM ahead, changed
), counted AS (
    INSERT INTO usage_changes (hour, submitted_by, model, generations, open, reserved_credits, final_credits)
    SELECT date_trunc('hour', first_seen_at, 'UTC') AS hour, submitted_by, sums.model, sum(times), -sum(was_open),
        coalesce(sum(times * reserved), 0)::numeric, coalesce(sum(times * final), 0)::numeric
    FROM changed CROSS JOIN LATERAL (VALUES
        (-1, 1, old_model, old_reserved, old_final), (1, 0, changed.model, reserved_credits, final_credits)
    ) AS sums (times, was_open, model, reserved, final)
    GROUP BY hour, submitted_by, sums.model
)
SELECT array_agg(id) AS ids, array_agg(last_number) AS numbers, array_agg(from_status) AS statuses,
    1 / (count(*) = coalesce((SELECT expected FROM whole), 0))::int AS is_whole
FROM changed
"""  # noqa: S608 - of constants
"""Arguments: `arguments`, and the number of rows. Returns one row; its arrays are null if nothing was written."""
