"""The statements behind the lists: each page is read from one index, from where it begins to where it ends."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, false, literal, select, text, tuple_, union_all

from app.ledger.reads import DeliveryFilter, GenerationFilter, Position
from app.ledger.statements import is_rare
from app.ledger.status import Outcome, Status, Tracking
from app.ledger.tables import NOT_APPLIED, NOT_SUCCEEDED, OPEN, deliveries, generations

# PostgreSQL takes tracking and status for independent: believing that few rows have both, it would collect and sort.
IN_ORDER = text("SET LOCAL enable_bitmapscan = off")
TERMINAL = (Status.SUCCEEDED, Status.FAILED)
_USUAL = "generation.succeeded"
_ABOUT_DELIVERIES = tuple(column for column in deliveries.c if column.name not in ("body", "headers"))
Conditions = tuple[ColumnElement[bool], ...]


def list_generations(chosen: GenerationFilter, *, after: Position | None, limit: int, is_sqlite: bool) -> Select[Any]:
    """At most `limit` generations that come after `after`, newest first."""
    g = generations.c
    matching = select(generations).where(
        *_equal(g.model, chosen.model),
        *_equal(g.client_request_id, chosen.client_request_id),
        *_equal(g.submitted_by, chosen.submitted_by),
        *_between(g.first_seen_at, chosen.created_after, chosen.created_before),
    )
    if chosen.tracking is Tracking.SETTLED:
        # In no index about tracking: they are what has a terminal status, a list for each.
        settled = [matching.where(g.status == status) for status in TERMINAL if chosen.status in (None, status)]
        parts = [_newest_first(part, g.first_seen_at, g.id, after=after, limit=limit).subquery() for part in settled]
        if not parts:
            return matching.where(false())
        both = union_all(*(select(part) for part in parts)).subquery("settled")
        return select(both).order_by(both.c.first_seen_at.desc(), both.c.id.desc()).limit(limit)
    if chosen.tracking is not None:
        matching = matching.where(*is_rare(g.tracking, chosen.tracking, OPEN, is_sqlite=is_sqlite))
    matching = matching.where(*_equal(g.status, chosen.status))
    return _newest_first(matching, g.first_seen_at, g.id, after=after, limit=limit)


def list_deliveries(chosen: DeliveryFilter, *, after: Position | None, limit: int, is_sqlite: bool) -> Select[Any]:
    """At most `limit` deliveries that come after `after`, newest first, without bodies and headers."""
    d = deliveries.c
    matching = select(*_ABOUT_DELIVERIES).where(
        *_equal(d.generation_id, chosen.generation_id),
        *of_outcome(chosen.outcome, is_sqlite=is_sqlite),
        *_of_type(chosen.event_type),
        *_between(d.received_at, chosen.received_after, chosen.received_before),
    )
    return _newest_first(matching, d.received_at, d.event_id, after=after, limit=limit)


def of_outcome(outcome: Outcome | None, *, is_sqlite: bool) -> Conditions:
    """Deliveries with this outcome; nearly all are applied, and those are in no index but that by time."""
    if outcome in (None, Outcome.APPLIED):
        return _equal(deliveries.c.outcome, outcome)
    return tuple(is_rare(deliveries.c.outcome, outcome, NOT_APPLIED, is_sqlite=is_sqlite))


def _of_type(event_type: str | None) -> Conditions:
    rare = () if event_type in (None, _USUAL) else (NOT_SUCCEEDED,)
    return (*_equal(deliveries.c.event_type, event_type), *rare)


def _equal(column: ColumnElement[Any], value: object) -> Conditions:
    return () if value is None else (column == value,)


def _between(column: ColumnElement[datetime], first: datetime | None, end: datetime | None) -> Conditions:
    from_first = () if first is None else (column >= first,)
    return from_first if end is None else (*from_first, column < end)


def _newest_first(
    statement: Select[Any], at: ColumnElement[datetime], key: ColumnElement[str], *, after: Position | None, limit: int
) -> Select[Any]:
    # Compared as a pair, which an index on (…, at, key) answers; an offset would read all that it skips.
    if after is not None:
        statement = statement.where(tuple_(at, key) < tuple_(literal(after.at, at.type), literal(after.id, key.type)))
    return statement.order_by(at.desc(), key.desc()).limit(limit)
