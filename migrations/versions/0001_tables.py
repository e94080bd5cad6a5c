"""The tables of release 0.2.0: the first migration.

The migrations of release 0.1, which this one replaces, kept their version in another table. Their databases are not
migrated: `receiver_alembic_version` is missing there, and `app.core.migrations` names the tables that are in the way.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "activity_minutes",
        sa.Column("minute", _TIME, nullable=False),
        sa.Column("what", _ID, nullable=False, comment="`deliveries`, or `settled by` and a source"),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column(
            "within_1s", sa.Integer(), nullable=False, comment="from Rivya's time of the outcome until it was recorded"
        ),
        sa.Column("within_10s", sa.Integer(), nullable=False),
        sa.Column("within_1m", sa.Integer(), nullable=False),
        sa.Column("within_10m", sa.Integer(), nullable=False, comment="each includes those that took less"),
        sa.PrimaryKeyConstraint("minute", "what", name=op.f("pk_activity_minutes")),
    )
    op.create_table(
        "deliveries",
        sa.Column("event_id", _ID, nullable=False, comment="with a digest where it came again with another content"),
        sa.Column("event_type", _ID),
        sa.Column("generation_id", _ID),
        sa.Column("endpoint_id", _ID),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="how often the same event came"),
        sa.Column("body_pruned_at", _TIME, comment="its body and headers were emptied then; null: they are there"),
        sa.Column("headers", sa.Text(), nullable=False, comment="those that matter, as JSON"),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('applied', 'stale', 'conflict', 'test', 'unknown_type', 'unreadable')",
            name=op.f("ck_deliveries_outcome"),
        ),
        sa.CheckConstraint("attempts >= 1", name=op.f("ck_deliveries_attempts_counted")),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_deliveries")),
    )
    _index("ix_deliveries_body_pruned_at", "deliveries", ["body_pruned_at"], where="body_pruned_at IS NOT NULL")
    _index(
        "ix_deliveries_event_type",
        "deliveries",
        ["event_type", "received_at", "event_id"],
        where="event_type <> 'generation.succeeded'",
    )
    _index("ix_deliveries_generation_id", "deliveries", ["generation_id"], where="outcome <> 'applied'")
    _index(
        "ix_deliveries_not_pruned",
        "deliveries",
        ["received_at", "event_id"],
        where="body_pruned_at IS NULL AND outcome <> 'applied'",
    )
    _index("ix_deliveries_outcome", "deliveries", ["outcome", "received_at", "event_id"], where="outcome <> 'applied'")
    _index("ix_deliveries_received_at_event_id", "deliveries", ["received_at", "event_id"])

    op.create_table(
        "endpoint_history",
        sa.Column("sequence", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("endpoint_id", _ID, nullable=False),
        sa.Column("recorded_at", _TIME, nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), comment="a code or a scheme; never a secret, a path key or a body"),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_endpoint_history")),
    )
    op.create_table(
        "endpoints",
        sa.Column("id", _ID, nullable=False),
        sa.Column("path_key", _ID, nullable=False, comment="the random end of the callback path: proof it is ours"),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("rivya_id", _ID),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_since", _TIME),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("create_attempted_at", _TIME, comment="a create was sent then, and what came of it is not known"),
        sa.Column("rotation_requested_at", _TIME, comment="a new secret is wanted since then"),
        sa.Column("rotation_attempted_at", _TIME, comment="a rotation was sent then, and what came of it is not known"),
        sa.Column("test_asked_at", _TIME, comment="a test delivery was asked for then"),
        sa.Column("scheme", sa.Text(), comment="the signature scheme, pinned by proof"),
        sa.Column("proven_at", _TIME, comment="when the scheme was pinned"),
        sa.Column("proven_by", sa.Text(), comment="the event whose delivery proved it"),
        sa.Column("other_scheme", sa.Text(), comment="what deliveries proved while another was pinned"),
        sa.Column("other_scheme_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_verified_at", _TIME, comment="the last delivery that its secret verified"),
        sa.Column("last_refused_at", _TIME, comment="the last refusal at its secret path"),
        sa.Column(
            "refusals", sa.Integer(), nullable=False, comment="at its secret path, since the last verified delivery"
        ),
        sa.Column("last_error", sa.Text(), comment="why the last call to Rivya about it failed"),
        sa.Column(
            "failure_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="as Rivya counts"
        ),
        sa.Column("last_success_at", _TIME, comment="as Rivya tells"),
        sa.Column("last_failure_at", _TIME, comment="as Rivya tells"),
        sa.CheckConstraint(
            "state IN ('intended', 'created', 'proven', 'serving', 'retiring', 'retired', 'manual')",
            name=op.f("ck_endpoints_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoints")),
        sa.UniqueConstraint("path_key", name=op.f("uq_endpoints_path_key")),
        sa.UniqueConstraint("rivya_id", name=op.f("uq_endpoints_rivya_id")),
    )
    _index(
        "uq_endpoints_state",
        "endpoints",
        ["state"],
        where="state IN ('intended', 'created', 'proven', 'serving', 'manual')",
        unique=True,
    )

    op.create_table(
        "generations",
        sa.Column("id", _ID, nullable=False, comment="Rivya's own id"),
        sa.Column("first_seen_at", _TIME, nullable=False),
        sa.Column("created_at", _TIME, comment="Rivya's time"),
        sa.Column("reserved_credits", sa.Float()),
        sa.Column("model", _ID),
        sa.Column("client_request_id", _ID),
        sa.Column("submitted_by", _ID, comment="name of the token that submitted it; null: not submitted through us"),
        sa.Column("metadata", sa.Text(), comment="what a caller of ours attached, as JSON"),
        sa.Column("metadata_by", sa.Text(), comment="name of the token that first attached it"),
        sa.Column("metadata_changes", sa.Text(), comment="by whom, when and to which SHA-256, the newest 100, as JSON"),
        sa.Column("settled_at", _TIME),
        sa.Column("failed_at", _TIME, comment="settled_at of those that failed"),
        sa.Column("updated_at", _TIME, comment="Rivya's time"),
        sa.Column("callback_received_at", _TIME, comment="the first verified delivery"),
        sa.Column("final_credits", sa.Float()),
        sa.Column("revision", sa.Integer(), nullable=False, comment="counts writes by record(): a lost race shows"),
        sa.Column("polls", sa.Integer(), nullable=False, comment="until it was settled; while it is open, see `polls`"),
        sa.Column("last_number", sa.SmallInteger(), nullable=False, comment="of its last transition"),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("settled_by", sa.Text()),
        sa.Column("rivya_object", sa.Text(), nullable=False, comment="Rivya's object as last accepted, as JSON"),
        sa.CheckConstraint(
            "(failed_at IS NOT NULL) = (status = 'failed')", name=op.f("ck_generations_failed_when_failed")
        ),
        sa.CheckConstraint(
            "(settled_at IS NOT NULL) = (status IN ('succeeded', 'failed'))",
            name=op.f("ck_generations_settled_when_terminal"),
        ),
        sa.CheckConstraint(
            "settled_by IN ('submit', 'webhook', 'poll', 'operator')", name=op.f("ck_generations_settled_by")
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'processing', 'succeeded', 'failed')", name=op.f("ck_generations_status")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
    )
    _index(
        "ix_generations_client_request_id",
        "generations",
        ["client_request_id", "first_seen_at", "id"],
        where="client_request_id IS NOT NULL",
    )
    _index("ix_generations_failed", "generations", ["first_seen_at", "id"], where="failed_at IS NOT NULL")
    _index("ix_generations_first_seen_at_id", "generations", ["first_seen_at", "id"])
    _index("ix_generations_model_first_seen_at_id", "generations", ["model", "first_seen_at", "id"])
    _index(
        "ix_generations_submitted_by",
        "generations",
        ["submitted_by", "first_seen_at", "id"],
        where="submitted_by IS NOT NULL",
    )

    op.create_table(
        "leases",
        sa.Column("name", _ID, nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("held_until", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "poll_budget",
        sa.Column("name", _ID, nullable=False),
        sa.Column("next_slot_at", _TIME, nullable=False, comment="the next request may leave then, not before"),
        sa.Column("blocked_until", _TIME, comment="Rivya asked for a pause (429)"),
        sa.Column("blocks", sa.Integer(), nullable=False, comment="429 answers in a row"),
        sa.Column("stopped_status", sa.Integer(), comment="401: no call will do; 403: no poll will"),
        sa.Column("stopped_reason", sa.Text(), comment="an error code of Rivya's that says the key won't do"),
        sa.Column("stopped_key", sa.Text(), comment="fingerprint of that key: another one is not stopped"),
        sa.Column("stopped_until", _TIME, comment="one probe is allowed then"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_poll_budget")),
    )
    op.create_table(
        "polls",
        sa.Column("generation_id", _ID, nullable=False),
        sa.Column("first_seen_at", _TIME, nullable=False, comment="as in generations"),
        sa.Column("model", sa.Text(), comment="as in generations, when the poll was scheduled"),
        sa.Column("source", sa.Text(), nullable=False, comment="of the first report"),
        sa.Column(
            "token",
            _ID,
            nullable=False,
            server_default="",
            comment="name of the first report's token; empty: nobody's",
        ),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("next_poll_at", _TIME, comment="null: never"),
        sa.Column("lease_until", _TIME, comment="a poller has it until then"),
        sa.Column("polls", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False, comment="in a row"),
        sa.Column("last_error", sa.Text()),
        sa.Column("not_found_count", sa.Integer(), nullable=False, comment="in a row"),
        sa.Column("not_found_since", _TIME),
        sa.CheckConstraint("(next_poll_at IS NULL) = (state = 'lost')", name=op.f("ck_polls_polled_unless_lost")),
        sa.CheckConstraint("source IN ('submit', 'webhook', 'poll', 'operator')", name=op.f("ck_polls_source")),
        sa.CheckConstraint("state IN ('watching', 'stalled', 'lost')", name=op.f("ck_polls_state")),
        sa.PrimaryKeyConstraint("generation_id", name=op.f("pk_polls")),
    )
    _index("ix_polls_next_poll_at", "polls", ["next_poll_at"], where="next_poll_at IS NOT NULL")
    _index(
        "ix_polls_token_source_next_poll_at",
        "polls",
        ["token", "source", "next_poll_at"],
        where="next_poll_at IS NOT NULL",
    )
    _index("ix_polls_state_first_seen_at", "polls", ["state", "first_seen_at", "generation_id"])

    op.create_table(
        "rejections",
        sa.Column("id", _ID, nullable=False),
        sa.Column("rejected_at", _TIME, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Text(), comment="set when it came to the secret path of an endpoint of ours"),
        sa.Column("size", sa.Integer(), nullable=False, comment="bytes"),
        sa.Column("header_names", sa.Text(), nullable=False, comment="comma separated"),
        sa.Column("remote_address", sa.Text()),
        sa.Column("digest", sa.Text(), nullable=False, comment="SHA-256 of the body, hex"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejections")),
    )
    _index("ix_rejections_rejected_at", "rejections", ["rejected_at"])

    op.create_table(
        "replicas",
        sa.Column("id", _ID, nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("seen_at", _TIME, nullable=False, comment="its last heartbeat"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replicas")),
    )
    op.create_table(
        "submissions",
        sa.Column("id", _ID, nullable=False),
        sa.Column("idempotency_key", _ID, nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False, comment="SHA-256 of the body, hex"),
        sa.Column("request", sa.LargeBinary(), nullable=False, comment="the body, as it is sent"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "is_final",
            sa.Integer(),
            nullable=False,
            comment="1: the answer is given again; 0: asking again sends again",
        ),
        sa.Column("response_status", sa.Integer()),
        sa.Column("response", sa.LargeBinary()),
        sa.Column("response_retry_after", sa.Integer(), comment="seconds"),
        sa.Column("generation_id", _ID),
        sa.Column("submitted_by", sa.Text(), comment="name of the caller's token"),
        sa.Column("callback_url", sa.Text(), comment="where the caller wants to be told of the outcome"),
        sa.Column("traceparent", sa.Text(), comment="of the caller's request"),
        sa.Column(
            "attempts", sa.Integer(), nullable=False, comment="numbers the attempts: a late one can't undo a later one"
        ),
        sa.Column("retries", sa.Integer(), nullable=False, comment="by the background, since a caller last sent it"),
        sa.Column("sent_at", _TIME, nullable=False, comment="when a caller last sent it"),
        sa.Column("next_attempt_at", _TIME, comment="when a background retry is due; null: never"),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("resolved_at", _TIME),
        sa.CheckConstraint(
            "(next_attempt_at IS NULL) = (state IN ('accepted', 'rejected'))",
            name=op.f("ck_submissions_retried_while_open"),
        ),
        sa.CheckConstraint(
            "(state = 'accepted') = (generation_id IS NOT NULL)", name=op.f("ck_submissions_accepted_has_generation")
        ),
        sa.CheckConstraint(
            "is_final = 0 OR state IN ('accepted', 'rejected')", name=op.f("ck_submissions_final_when_answered")
        ),
        sa.CheckConstraint(
            "state IN ('sending', 'accepted', 'rejected', 'unknown')", name=op.f("ck_submissions_state")
        ),
        sa.CheckConstraint("is_final IN (0, 1)", name=op.f("ck_submissions_is_final")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_submissions")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_submissions_idempotency_key")),
    )
    _index("ix_submissions_created_at", "submissions", ["created_at"], where="next_attempt_at IS NOT NULL")
    _index("ix_submissions_next_attempt_at", "submissions", ["next_attempt_at"], where="next_attempt_at IS NOT NULL")

    op.create_table(
        "transitions",
        sa.Column(
            "feed_position",
            _SEQUENCE,
            autoincrement=True,
            nullable=False,
            comment="on PostgreSQL see app.ledger.postgres.FEED_LOCK before reading in this order",
        ),
        sa.Column("generation_id", _ID, nullable=False),
        sa.Column("number", sa.SmallInteger(), nullable=False),
        sa.Column("from_status", sa.Text()),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("event_id", _ID),
        sa.Column("occurred_at", _TIME, comment="Rivya's time"),
        sa.Column("recorded_at", _TIME, nullable=False),
        sa.CheckConstraint(
            "from_status IN ('queued', 'processing', 'succeeded', 'failed')", name=op.f("ck_transitions_from_status")
        ),
        sa.CheckConstraint(
            "from_status IS NULL OR from_status IN ('queued', 'processing')",
            name=op.f("ck_transitions_terminal_is_final"),
        ),
        sa.CheckConstraint("source IN ('submit', 'webhook', 'poll', 'operator')", name=op.f("ck_transitions_source")),
        sa.CheckConstraint(
            "to_status IN ('queued', 'processing', 'succeeded', 'failed')", name=op.f("ck_transitions_to_status")
        ),
        sa.CheckConstraint(
            "(number = 1) = (from_status IS NULL)", name=op.f("ck_transitions_first_comes_from_nothing")
        ),
        sa.PrimaryKeyConstraint("feed_position", name=op.f("pk_transitions")),
        sa.UniqueConstraint("generation_id", "number", name=op.f("uq_transitions_generation_id_number")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "usage_changes",
        sa.Column("id", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("hour", _TIME, nullable=False, comment="of first_seen_at, in UTC"),
        sa.Column("submitted_by", sa.Text()),
        sa.Column("model", sa.Text()),
        sa.Column("generations", sa.Integer(), nullable=False, comment="more of them; less than 0: fewer"),
        sa.Column("open", sa.Integer(), nullable=False, comment="those without an outcome"),
        sa.Column("reserved_credits", sa.Numeric(asdecimal=False), nullable=False),
        sa.Column("final_credits", sa.Numeric(asdecimal=False), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_changes")),
    )
    op.create_table(
        "usage_hours",
        sa.Column("id", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("hour", _TIME, nullable=False, comment="of first_seen_at, in UTC"),
        sa.Column("submitted_by", sa.Text()),
        sa.Column("model", sa.Text()),
        sa.Column(
            "generations", sa.Integer(), nullable=False, comment="several rows may be about the same; they add up"
        ),
        sa.Column("open", sa.Integer(), nullable=False, comment="those without an outcome"),
        sa.Column("reserved_credits", sa.Numeric(asdecimal=False), nullable=False),
        sa.Column("final_credits", sa.Numeric(asdecimal=False), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_hours")),
    )
    _index("ix_usage_hours_hour", "usage_hours", ["hour"])

    op.create_table(
        "endpoint_secrets",
        sa.Column("id", _ID, nullable=False),
        sa.Column("endpoint_id", _ID, nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False, comment="encrypted, under the key it names"),
        sa.Column("valid_from", _TIME, nullable=False),
        sa.Column("valid_until", _TIME, comment="null: current"),
        sa.Column("proven_at", _TIME, comment="the first delivery that it verified"),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["endpoints.id"], name=op.f("fk_endpoint_secrets_endpoint_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoint_secrets")),
    )
    _index("ix_endpoint_secrets_endpoint_id", "endpoint_secrets", ["endpoint_id"])
    _index("uq_endpoint_secrets_current", "endpoint_secrets", ["endpoint_id"], where="valid_until IS NULL", unique=True)
    if op.get_context().dialect.name == "postgresql":
        # Room for the settled row in the page of the open one: then no index is written.
        op.execute("ALTER TABLE generations SET (fillfactor = 50)")


def _index(name: str, table: str, columns: list[str], *, where: str | None = None, unique: bool = False) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(name, table, columns, unique=unique, postgresql_where=condition, sqlite_where=condition)


def downgrade() -> None:
    for name in (
        "endpoint_secrets",
        "usage_hours",
        "usage_changes",
        "transitions",
        "submissions",
        "replicas",
        "rejections",
        "polls",
        "poll_budget",
        "leases",
        "generations",
        "endpoints",
        "endpoint_history",
        "deliveries",
        "activity_minutes",
    ):
        op.drop_table(name)
