"""The submissions table: a create is written here before it is sent."""

from sqlalchemy import CheckConstraint, Column, Index, Integer, LargeBinary, Table, Text, text

from app.core.database import Moment, metadata, one_of
from app.submission.state import State

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
    Column("response_retry_after", Integer, comment="seconds"),
    Column("generation_id", Text),
    Column("submitted_by", Text, comment="name of the caller's token"),
    Column("attempts", Integer, nullable=False, comment="numbers the attempts: a late one can't undo a later one"),
    Column("retries", Integer, nullable=False, comment="by the background, since a caller last sent it"),
    Column("sent_at", Moment, nullable=False, comment="when a caller last sent it"),
    Column("next_attempt_at", Moment, comment="when a background retry is due; null: never"),
    Column("last_error", Text),
    Column("created_at", Moment, nullable=False),
    Column("resolved_at", Moment),
    one_of("state", State),
    CheckConstraint("is_final IN (0, 1)", name="is_final"),
    CheckConstraint("is_final = 0 OR state IN ('accepted', 'rejected')", name="final_when_answered"),
    CheckConstraint("(state = 'accepted') = (generation_id IS NOT NULL)", name="accepted_has_generation"),
    CheckConstraint("(next_attempt_at IS NULL) = (state IN ('accepted', 'rejected'))", name="retried_while_open"),
    Index(
        "ix_submissions_next_attempt_at",
        "next_attempt_at",
        postgresql_where=text("next_attempt_at IS NOT NULL"),
        sqlite_where=text("next_attempt_at IS NOT NULL"),
    ),
    Index(
        "ix_submissions_created_at",
        "created_at",
        postgresql_where=text("next_attempt_at IS NOT NULL"),
        sqlite_where=text("next_attempt_at IS NOT NULL"),
    ),
)
