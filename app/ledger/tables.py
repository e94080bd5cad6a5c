"""The tables of the ledger, of polling and of usage; every rule that can be a constraint is one."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from app.core.database import Id, UtcDateTime, enum_check, metadata, partial_index
from app.ledger.models import OPEN_STATES, Outcome, Source, Status

# Nearly all deliveries are applied and of the type succeeded, and nearly all generations succeed: the partial indexes
# leave those out. A statement that is to use such an index repeats its condition in this text: with parameters, a
# planner can't prove that the index applies.
FAILED = text("failed_at IS NOT NULL")
NOT_APPLIED = text("outcome <> 'applied'")
NOT_SUCCEEDED = text("event_type <> 'generation.succeeded'")
NOT_PRUNED = text("body_pruned_at IS NULL AND outcome <> 'applied'")

# SQLite numbers rows by itself only for a column whose type is exactly INTEGER.
_Sequence = BigInteger().with_variant(Integer, "sqlite")

# Facts. Settling changes no column of an index, except those of the partial index on what failed, and migration 0001
# leaves room in each page: PostgreSQL then updates in place (HOT) and writes into no index. The columns that do not
# change come first: of an update, PostgreSQL logs what follows the first difference.
generations = Table(
    "generations",
    metadata,
    Column("id", Id, primary_key=True, comment="Rivya's own id"),
    Column("first_seen_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, comment="Rivya's time"),
    Column("reserved_credits", Float),
    Column("model", Id),
    Column("client_request_id", Id),
    Column("submitted_by", Id, comment="name of the token that submitted it; null: not submitted through us"),
    Column("metadata", Text, comment="what a caller of ours attached, as JSON"),
    Column("metadata_by", Text, comment="name of the token that first attached it"),
    Column("metadata_changes", Text, comment="by whom, when and to which SHA-256, the newest 100, as JSON"),
    Column("settled_at", UtcDateTime),
    Column("failed_at", UtcDateTime, comment="settled_at of those that failed"),
    Column("updated_at", UtcDateTime, comment="Rivya's time"),
    Column("callback_received_at", UtcDateTime, comment="the first verified delivery"),
    Column("final_credits", Float),
    Column("revision", Integer, nullable=False, comment="counts writes by record(): a lost race shows"),
    Column("polls", Integer, nullable=False, comment="until it was settled; while it is open, see `polls`"),
    Column("last_number", SmallInteger, nullable=False, comment="of its last transition"),
    Column("status", Text, nullable=False),
    Column("settled_by", Text),
    Column("rivya_object", Text, nullable=False, comment="Rivya's object as last accepted, as JSON"),
    Column("tracked_by", Id, comment="name of the token that first tracked it while it was nobody's"),
    enum_check("status", Status),
    enum_check("settled_by", Source),
    CheckConstraint("(settled_at IS NOT NULL) = (status IN ('succeeded', 'failed'))", name="settled_when_terminal"),
    CheckConstraint("(failed_at IS NOT NULL) = (status = 'failed')", name="failed_when_failed"),
    Index("ix_generations_first_seen_at_id", "first_seen_at", "id"),
    Index("ix_generations_model_first_seen_at_id", "model", "first_seen_at", "id"),
    partial_index("ix_generations_failed", "first_seen_at", "id", where=FAILED),
    partial_index(
        "ix_generations_client_request_id",
        *("client_request_id", "first_seen_at", "id"),
        where=text("client_request_id IS NOT NULL"),
    ),
    partial_index(
        "ix_generations_submitted_by", "submitted_by", "first_seen_at", "id", where=text("submitted_by IS NOT NULL")
    ),
    partial_index(
        "ix_generations_tracked_by", "tracked_by", "first_seen_at", "id", where=text("tracked_by IS NOT NULL")
    ),
)

# One row for each open generation, inserted and deleted in the statement that writes the generation. Claims read only
# this, so their cost does not depend on how much has been recorded.
polls = Table(
    "polls",
    metadata,
    Column("generation_id", Id, primary_key=True),
    Column("first_seen_at", UtcDateTime, nullable=False, comment="as in generations"),
    Column("model", Text, comment="as in generations, when the poll was scheduled"),
    Column("source", Text, nullable=False, comment="of the first report"),
    Column("token", Id, nullable=False, server_default="", comment="name of the first report's token; empty: nobody's"),
    Column("state", Text, nullable=False),
    Column("next_poll_at", UtcDateTime, comment="null: never"),
    Column("lease_until", UtcDateTime, comment="a poller has it until then"),
    Column("polls", Integer, nullable=False),
    Column("failures", Integer, nullable=False, comment="in a row"),
    Column("last_error", Text),
    Column("not_found_count", Integer, nullable=False, comment="in a row"),
    Column("not_found_since", UtcDateTime),
    enum_check("source", Source),
    enum_check("state", OPEN_STATES),
    CheckConstraint("(next_poll_at IS NULL) = (state = 'lost')", name="polled_unless_lost"),
    partial_index("ix_polls_next_poll_at", "next_poll_at", where=text("next_poll_at IS NOT NULL")),
    partial_index(
        "ix_polls_token_source_next_poll_at",
        *("token", "source", "next_poll_at"),
        where=text("next_poll_at IS NOT NULL"),
    ),
    Index("ix_polls_state_first_seen_at", "state", "first_seen_at", "generation_id"),
)

# No foreign keys: one statement writes a generation and its transitions, and one transaction removes them.
transitions = Table(
    "transitions",
    metadata,
    Column(
        "feed_position",
        _Sequence,
        primary_key=True,
        autoincrement=True,
        comment="on PostgreSQL see app.ledger.postgres.FEED_LOCK before reading in this order",
    ),
    Column("generation_id", Id, nullable=False),
    Column("number", SmallInteger, nullable=False),
    Column("from_status", Text),
    Column("to_status", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("event_id", Id),
    Column("occurred_at", UtcDateTime, comment="Rivya's time"),
    Column("recorded_at", UtcDateTime, nullable=False),
    UniqueConstraint("generation_id", "number"),
    enum_check("from_status", Status),
    enum_check("to_status", Status),
    enum_check("source", Source),
    CheckConstraint("(number = 1) = (from_status IS NULL)", name="first_comes_from_nothing"),
    CheckConstraint("from_status IS NULL OR from_status IN ('queued', 'processing')", name="terminal_is_final"),
    sqlite_autoincrement=True,  # a position is never used again, though the newest rows may be deleted
)

# One row, made by the migration: `app.ledger.feed` reads it.
feed = Table(
    "feed",
    metadata,
    Column("name", Id, primary_key=True),
    Column("cursor_key", Text, nullable=False, comment="signs the cursors, as hex"),
    Column(
        "removed_through",
        BigInteger,
        nullable=False,
        comment="the last position of which a transition was removed; 0: none",
    ),
)

# No foreign key to generations: a delivery is stored as evidence even if its generation is not. The delivery that was
# applied is found by `transitions.event_id`, so the index by generation holds only the others.
deliveries = Table(
    "deliveries",
    metadata,
    Column("event_id", Id, primary_key=True, comment="with a digest where it came again with another content"),
    Column("event_type", Id),
    Column("generation_id", Id),
    Column("endpoint_id", Id),
    Column("received_at", UtcDateTime, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("attempts", Integer, nullable=False, comment="how often the same event came"),
    Column("body_pruned_at", UtcDateTime, comment="its body and headers were emptied then; null: they are there"),
    Column("headers", Text, nullable=False, comment="those that matter, as JSON"),
    Column("body", LargeBinary, nullable=False),
    enum_check("outcome", Outcome),
    CheckConstraint("attempts >= 1", name="attempts_counted"),
    Index("ix_deliveries_received_at_event_id", "received_at", "event_id"),
    partial_index("ix_deliveries_generation_id", "generation_id", where=NOT_APPLIED),
    partial_index("ix_deliveries_outcome", "outcome", "received_at", "event_id", where=NOT_APPLIED),
    partial_index("ix_deliveries_event_type", "event_type", "received_at", "event_id", where=NOT_SUCCEEDED),
    partial_index("ix_deliveries_not_pruned", "received_at", "event_id", where=NOT_PRUNED),
    partial_index("ix_deliveries_body_pruned_at", "body_pruned_at", where=text("body_pruned_at IS NOT NULL")),
)

# A URL that is called once, with the outcome of one generation: `app.notifications` writes that notification and
# removes the row. No foreign key: the row may come before the generation.
callbacks = Table(
    "callbacks",
    metadata,
    Column("generation_id", Id, primary_key=True),
    Column("token", Id, primary_key=True, comment="name of the token that asked for it"),
    Column("url", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)


# Usage: sums by the hour, and the changes since they were computed.
#
# What writes or removes generations writes the changes of their sums in the same transaction: both tables together
# equal the sums of the generations. `app.operations.usage_rollup` moves the changes into the sums.


# Not floats: sums that are added to and subtracted from for years would drift, and too large a sum would be an error.
_Credits = Numeric(asdecimal=False)


def _sums(*, generations_comment: str) -> list[Column[object]]:
    return [
        Column("id", _Sequence, primary_key=True, autoincrement=True),
        Column("hour", UtcDateTime, nullable=False, comment="of first_seen_at, in UTC"),
        Column("submitted_by", Text),
        Column("model", Text),
        Column("generations", Integer, nullable=False, comment=generations_comment),
        Column("open", Integer, nullable=False, comment="those without an outcome"),
        Column("reserved_credits", _Credits, nullable=False),
        Column("final_credits", _Credits, nullable=False),
    ]


usage_hours = Table(
    "usage_hours",
    metadata,
    *_sums(generations_comment="several rows may be about the same; they add up"),
    Index("ix_usage_hours_hour", "hour"),
)
usage_changes = Table("usage_changes", metadata, *_sums(generations_comment="more of them; less than 0: fewer"))

# For charts: each process adds what it recorded, every few seconds. Of a process that was killed, the last seconds are
# missing.
activity_minutes = Table(
    "activity_minutes",
    metadata,
    Column("minute", UtcDateTime, primary_key=True),
    Column("what", Id, primary_key=True, comment="`deliveries`, or `settled by` and a source"),
    Column("count", Integer, nullable=False),
    Column("within_1s", Integer, nullable=False, comment="from Rivya's time of the outcome until it was recorded"),
    Column("within_10s", Integer, nullable=False),
    Column("within_1m", Integer, nullable=False),
    Column("within_10m", Integer, nullable=False, comment="each includes those that took less"),
)
