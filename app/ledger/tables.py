"""The tables of the ledger and of usage; every rule that can be a constraint is one."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
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

from app.core.database import UtcDateTime, enum_check, metadata
from app.ledger.models import Outcome, Source, Status, Tracking

# Nearly all rows are settled, applied or succeeded, and the partial indexes leave those out. A statement that is to use
# such an index repeats its condition in this text: with parameters, a planner can't prove that the index applies.
OPEN = text("tracking <> 'settled'")
NOT_APPLIED = text("outcome <> 'applied'")
NOT_SUCCEEDED = text("event_type <> 'generation.succeeded'")

# SQLite numbers rows by itself only for a column whose type is exactly INTEGER.
_Sequence = BigInteger().with_variant(Integer, "sqlite")

generations = Table(
    "generations",
    metadata,
    Column("id", Text, primary_key=True, comment="Rivya's own id"),
    Column("status", Text, nullable=False),
    Column("model", Text),
    Column("rivya_object", Text, nullable=False, comment="Rivya's object as last accepted, as JSON"),
    Column("reserved_credits", Float),
    Column("final_credits", Float),
    Column("created_at", UtcDateTime, comment="Rivya's time"),
    Column("updated_at", UtcDateTime, comment="Rivya's time"),
    Column("client_request_id", Text),
    Column("submitted_by", Text, comment="name of the token that submitted it; null: not submitted through us"),
    Column("metadata", Text, comment="what a caller of ours attached, as JSON"),
    Column("first_seen_at", UtcDateTime, nullable=False),
    Column("settled_at", UtcDateTime),
    Column("settled_by", Text),
    Column("callback_received_at", UtcDateTime, comment="the first verified delivery"),
    Column("last_number", SmallInteger, nullable=False, comment="of its last transition"),
    Column("revision", Integer, nullable=False, comment="counts writes by record(): a lost race shows"),
    Column("tracking", Text, nullable=False),
    Column("next_poll_at", UtcDateTime, comment="null: never"),
    Column("lease_until", UtcDateTime, comment="a poller has it until then"),
    Column("polls", Integer, nullable=False),
    Column("poll_failures", Integer, nullable=False, comment="in a row"),
    Column("last_poll_error", Text),
    Column("not_found_count", Integer, nullable=False, comment="in a row"),
    Column("not_found_since", UtcDateTime),
    enum_check("status", Status),
    enum_check("tracking", Tracking),
    enum_check("settled_by", Source),
    CheckConstraint("(settled_at IS NOT NULL) = (status IN ('succeeded', 'failed'))", name="settled_when_terminal"),
    CheckConstraint("(tracking = 'settled') = (settled_at IS NOT NULL)", name="tracking_settled"),
    CheckConstraint("next_poll_at IS NULL OR tracking IN ('watching', 'stalled')", name="polled_while_open"),
    Index(
        "ix_generations_next_poll_at",
        "next_poll_at",
        postgresql_where=text("next_poll_at IS NOT NULL"),
        sqlite_where=text("next_poll_at IS NOT NULL"),
    ),
    Index("ix_generations_first_seen_at_id", "first_seen_at", "id"),
    Index("ix_generations_status_first_seen_at_id", "status", "first_seen_at", "id"),
    Index(
        "ix_generations_tracking_first_seen_at_id",
        "tracking",
        "first_seen_at",
        "id",
        postgresql_where=OPEN,
        sqlite_where=OPEN,
    ),
    Index("ix_generations_model_first_seen_at_id", "model", "first_seen_at", "id"),
    Index(
        "ix_generations_client_request_id",
        "client_request_id",
        "first_seen_at",
        "id",
        postgresql_where=text("client_request_id IS NOT NULL"),
        sqlite_where=text("client_request_id IS NOT NULL"),
    ),
    Index(
        "ix_generations_submitted_by",
        "submitted_by",
        "first_seen_at",
        "id",
        postgresql_where=text("submitted_by IS NOT NULL"),
        sqlite_where=text("submitted_by IS NOT NULL"),
    ),
)

transitions = Table(
    "transitions",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=True),
    Column("generation_id", Text, ForeignKey("generations.id", ondelete="CASCADE"), nullable=False),
    Column("number", SmallInteger, nullable=False),
    Column("from_status", Text),
    Column("to_status", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("event_id", Text),
    Column("occurred_at", UtcDateTime, comment="Rivya's time"),
    Column("recorded_at", UtcDateTime, nullable=False),
    UniqueConstraint("generation_id", "number"),
    UniqueConstraint("generation_id", "to_status"),
    enum_check("from_status", Status),
    enum_check("to_status", Status),
    enum_check("source", Source),
    CheckConstraint("(number = 1) = (from_status IS NULL)", name="first_comes_from_nothing"),
    CheckConstraint("from_status IS NULL OR from_status IN ('queued', 'processing')", name="terminal_is_final"),
)

# No foreign key to generations: a delivery is stored as evidence even if its generation is not.
deliveries = Table(
    "deliveries",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("event_type", Text),
    Column("generation_id", Text),
    Column("endpoint_id", Text),
    Column("received_at", UtcDateTime, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("headers", Text, nullable=False, comment="those that matter, as JSON"),
    Column("outcome", Text, nullable=False),
    Column("attempts", Integer, nullable=False, comment="how often the same event came"),
    Column("body_pruned_at", UtcDateTime, comment="its body and headers were emptied then; null: they are there"),
    enum_check("outcome", Outcome),
    CheckConstraint("attempts >= 1", name="attempts_counted"),
    Index("ix_deliveries_received_at_event_id", "received_at", "event_id"),
    Index("ix_deliveries_generation_id", "generation_id"),
    Index(
        "ix_deliveries_outcome",
        "outcome",
        "received_at",
        "event_id",
        postgresql_where=NOT_APPLIED,
        sqlite_where=NOT_APPLIED,
    ),
    Index(
        "ix_deliveries_event_type",
        "event_type",
        "received_at",
        "event_id",
        postgresql_where=NOT_SUCCEEDED,
        sqlite_where=NOT_SUCCEEDED,
    ),
    Index(
        "ix_deliveries_body_pruned_at",
        "body_pruned_at",
        postgresql_where=text("body_pruned_at IS NOT NULL"),
        sqlite_where=text("body_pruned_at IS NOT NULL"),
    ),
)


# Usage: sums by the hour, and the changes since they were computed.
#
# Triggers on `generations` (migration 0006) write the changes of each statement to `usage_changes`, in the same
# transaction: whatever writes a generation, both tables together equal the sums of the generations.
# `app.operations.usage_rollup` moves the changes into the sums.


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
