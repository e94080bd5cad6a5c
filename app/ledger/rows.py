"""Converts between rows and the types of the ledger; only this module knows which columns hold JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter, itemgetter
from typing import Any

from sqlalchemy import FromClause, RowMapping, Select, func, select

from app.core.records import dump_json as dump_bytes
from app.core.records import parse_json
from app.ledger.decide import DeliveryRow, GenerationRow, KnownEvent, Plan, usage_changes
from app.ledger.models import (
    GENERATION_MEMBERS,
    Generation,
    Outcome,
    Source,
    Status,
    StoredDelivery,
    Tracking,
    Transition,
)
from app.ledger.tables import generations, polls

Row = RowMapping | Mapping[str, Any]
"""A row with access by column name, from SQLAlchemy or from a driver."""

Values = Sequence[Any]

# The columns that each statement writes, in the order of their values.
GENERATION_COLUMNS = tuple(column.name for column in generations.c)
UNINDEXED_COLUMNS = (
    *("status", "rivya_object", "last_number", "settled_at", "settled_by", "callback_received_at", "updated_at"),
    *("final_credits", "polls", "reserved_credits", "created_at", "metadata", "metadata_by"),
    *("metadata_changes", "failed_at"),
)
"""Their change writes into no index, but for the one of what failed."""
CHANGED_COLUMNS = (*UNINDEXED_COLUMNS, "model", "client_request_id", "submitted_by", "tracked_by")
"""Those that change most come first: the values of a row end with its last change, and the rest stays as it is."""
RESCHEDULED_COLUMNS = (
    *("model", "state", "next_poll_at", "polls", "failures", "not_found_count"),
    *("lease_until", "last_error", "not_found_since"),
)
"""Those that are written again when the next poll of a known generation is scheduled."""
POLL_COLUMNS = ("generation_id", "first_seen_at", "source", "token", *RESCHEDULED_COLUMNS)
DELIVERY_COLUMNS = (
    *("event_id", "event_type", "generation_id", "endpoint_id", "received_at", "outcome", "attempts", "headers"),
    "body",
)
TRANSITION_COLUMNS = tuple(field.name for field in fields(Transition))
_COUNTED = frozenset({"submitted_by", "model", "settled_at", "reserved_credits", "final_credits"})
USAGE_COLUMNS = ("hour", "submitted_by", "model", "generations", "open", "reserved_credits", "final_credits")


def select_generations(source: FromClause) -> Select[Any]:
    """The members of each generation of `source`, which has the columns of `generations`, for `to_generation`."""
    members = {
        **source.c,
        "tracking": func.coalesce(polls.c.state, Tracking.SETTLED.value).label("tracking"),
        "polls": func.coalesce(polls.c.polls, source.c.polls).label("polls"),
        "next_poll_at": polls.c.next_poll_at,
    }
    joined = source.outerjoin(polls, polls.c.generation_id == source.c.id)
    return select(*(members[name] for name in GENERATION_MEMBERS)).select_from(joined)


SELECT_GENERATIONS = select_generations(generations)

_JSON_COLUMNS = ("metadata", "metadata_changes", "rivya_object")
_members = itemgetter(*GENERATION_MEMBERS)
# Looking a member of an enumeration up in a dictionary takes a tenth of calling the enumeration.
_PARSED: tuple[tuple[int, Callable[[str], Any]], ...] = (
    (GENERATION_MEMBERS.index("status"), {status.value: status for status in Status}.__getitem__),
    (GENERATION_MEMBERS.index("tracking"), {state.value: state for state in Tracking}.__getitem__),
    (GENERATION_MEMBERS.index("settled_by"), {source.value: source for source in Source}.__getitem__),
    *((GENERATION_MEMBERS.index(name), parse_json) for name in _JSON_COLUMNS),
)
_generation = attrgetter(*GENERATION_COLUMNS)
_transition = attrgetter(*TRANSITION_COLUMNS)
_JSON = tuple(GENERATION_COLUMNS.index(name) for name in _JSON_COLUMNS)


def dump_json(value: object) -> str:
    """A value as JSON text."""
    return dump_bytes(value).decode()


def to_generation(row: Row) -> Generation:
    """The generation in a row of `SELECT_GENERATIONS`."""
    return parse_generation(list(_members(row)))


def parse_generation(values: list[Any]) -> Generation:
    """The generation whose members have these values, in their order: enumerations and JSON still as text."""
    for place, parse in _PARSED:
        if values[place] is not None:
            values[place] = parse(values[place])
    return Generation(*values)


def to_known_event(row: Row) -> KnownEvent:
    """What is stored of an event, in a row with its four columns."""
    return KnownEvent(Outcome(row["outcome"]), row["event_type"], row["generation_id"], row["body"])


def written_rows(plan: Plan) -> dict[str, list[Values]]:
    """The values to write for `plan`, always in the order of the keys, so that two batches can't deadlock.

    `changed`: id and revision as it was read, then `CHANGED_COLUMNS`; None for what stays, left out at the end.
    `repeated`: event ids with their new attempts. `closed`: ids of the generations that are settled now. The others are
    whole rows of `generations`, `polls`, `deliveries`, `transitions` and `usage_changes`, in the order of the columns.
    """
    changed = [plan.generations[key] for key in sorted(plan.generations)]
    deliveries = [plan.deliveries[key] for key in sorted(plan.deliveries)]
    return {
        "changed": [_updated(row, row.stored) for row in changed if row.stored is not None],
        "added": [_inserted(row.generation) for row in changed if row.stored is None],
        "repeated": [(row.delivery.event_id, row.attempts) for row in deliveries if row.is_stored],
        "opened": [_opened(row) for row in changed if row.changes.get("next_poll_at") is not None],
        "closed": [(row.generation.id,) for row in changed if _is_closed(row)],
        "delivered": [_delivered(row) for row in deliveries if not row.is_stored],
        "moved": [_transition(transition) for transition in plan.transitions],
        "counted": [*usage_changes((row.stored, row.generation) for row in changed if _is_counted(row))],
    }


def _is_counted(row: GenerationRow) -> bool:
    return row.stored is None or not row.changes.keys().isdisjoint(_COUNTED)


def _inserted(generation: Generation) -> Values:
    values = list(_generation(generation))
    for place in _JSON:
        if values[place] is not None:
            values[place] = dump_json(values[place])
    values[_REVISION] = 1
    return values


def _updated(row: GenerationRow, stored: Generation) -> Values:
    changes = row.changes
    for name in _JSON_COLUMNS:
        if name in changes:
            changes = {**changes, name: dump_json(changes[name])}
    values = [stored.id, stored.revision, *map(changes.get, CHANGED_COLUMNS)]
    if _is_closed(row):
        values[_POLLS] = row.generation.polls
    while values[-1] is None:
        values.pop()
    return values


def _is_closed(row: GenerationRow) -> bool:
    return row.stored is not None and row.stored.settled_at is None and row.generation.settled_at is not None


def _opened(row: GenerationRow) -> Values:
    it, report = row.generation, row.report
    schedule = (it.model, it.tracking, it.next_poll_at, it.polls, 0, 0, None, None, None)
    return (it.id, it.first_seen_at, report.source, report.token or "", *schedule)


def _delivered(row: DeliveryRow) -> Values:
    it = row.delivery
    about = (it.event_id, it.event_type, row.generation_id, it.endpoint_id, it.received_at)
    return (*about, row.outcome, row.attempts, dump_json(it.headers), it.body)


def apart(delivered: Sequence[Values]) -> tuple[list[Values], bytes]:
    """The rows of deliveries with position and length of their bodies, and all bodies: JSON can't hold bytes.

    The position is the one of the first byte, counted from 1.
    """
    bodies, placed = bytearray(), list[Values]()
    for *values, body in delivered:
        placed.append((*values, len(bodies) + 1, len(body)))
        bodies += body
    return placed, bytes(bodies)


def to_transition(row: Row) -> Transition:
    """The transition in a row of `transitions`."""
    members = {name: row[name] for name in TRANSITION_COLUMNS}
    for name in ("from_status", "to_status"):
        members[name] = None if members[name] is None else Status(members[name])
    return Transition(**{**members, "source": Source(members["source"])})


def to_delivery(row: Row) -> StoredDelivery:
    """The delivery in a row of `deliveries`, with body and headers if they were selected."""
    members = {**row, "outcome": Outcome(row["outcome"])}
    if "headers" in members:
        members["headers"] = parse_json(members["headers"])
    return StoredDelivery(**members)


_REVISION = GENERATION_COLUMNS.index("revision")
_POLLS = 2 + CHANGED_COLUMNS.index("polls")
