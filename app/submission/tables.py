"""The submissions table: a create is written here before it is sent."""

from enum import StrEnum

from sqlalchemy import Column, Index, Integer, LargeBinary, Table, Text, text

from app.core.schema import Moment, metadata, one_of


class State(StrEnum):
    """What is known of a submission."""

    SENDING = "sending"
    """Written down, being sent (or cut off while it was)."""
    ACCEPTED = "accepted"
    """Rivya made a generation of it."""
    REJECTED = "rejected"
    """Rivya said no, or certainly never heard of it."""
    UNKNOWN = "unknown"
    """It was sent and no answer came: retried with the same key until one does."""


submissions = Table(
    "submissions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("request_hash", Text, nullable=False, comment="SHA-256 of the body, hex"),
    Column("request", LargeBinary, nullable=False, comment="the body, as it is sent"),
    Column("state", Text, nullable=False),
    Column("is_final", Integer, nullable=False, comment="1: the answer is given again; 0: asking again sends again"),
    Column("response_status", Integer),
    Column("response", LargeBinary),
    Column("generation_id", Text),
    Column("submitted_by", Text, comment="name of the caller's token"),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", Moment, comment="when a background retry is due; null: never"),
    Column("last_error", Text),
    Column("created_at", Moment, nullable=False),
    Column("resolved_at", Moment),
    one_of("state", State),
    Index(
        "ix_submissions_next_attempt_at",
        "next_attempt_at",
        postgresql_where=text("next_attempt_at IS NOT NULL"),
        sqlite_where=text("next_attempt_at IS NOT NULL"),
    ),
)
