"""first tables"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "deliveries",
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=True),
        sa.Column("generation_id", sa.Text(), nullable=True),
        sa.Column("endpoint_id", sa.Text(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False, comment="those that matter, as JSON"),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="how often the same event came"),
        sa.CheckConstraint(
            "outcome IN ('applied', 'stale', 'conflict', 'test', 'unknown_type', 'unreadable')",
            name=op.f("ck_deliveries_outcome"),
        ),
        sa.CheckConstraint("attempts >= 1", name=op.f("ck_deliveries_attempts_counted")),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_deliveries")),
    )
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.create_index("ix_deliveries_generation_id", ["generation_id"], unique=False)
        batch_op.create_index("ix_deliveries_received_at_event_id", ["received_at", "event_id"], unique=False)

    op.create_table(
        "endpoints",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column(
            "path_key", sa.Text(), nullable=False, comment="the random end of the callback path: proof it is ours"
        ),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("rivya_id", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("scheme", sa.Text(), nullable=True, comment="the signature scheme, pinned"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "create_attempted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="a create was sent then, and what came of it is not known",
        ),
        sa.Column(
            "last_verified_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the last delivery that its secret verified",
        ),
        sa.Column(
            "last_refused_at", sa.DateTime(timezone=True), nullable=True, comment="the last refusal at its secret path"
        ),
        sa.Column(
            "refusals", sa.Integer(), nullable=False, comment="at its secret path, since the last verified delivery"
        ),
        sa.Column("last_error", sa.Text(), nullable=True, comment="why the last call to Rivya about it failed"),
        sa.CheckConstraint(
            "state IN ('intended', 'created', 'proven', 'serving', 'retiring', 'retired')",
            name=op.f("ck_endpoints_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoints")),
        sa.UniqueConstraint("path_key", name=op.f("uq_endpoints_path_key")),
        sa.UniqueConstraint("rivya_id", name=op.f("uq_endpoints_rivya_id")),
    )
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.create_index(
            "uq_endpoints_state",
            ["state"],
            unique=True,
            postgresql_where=sa.text("state IN ('intended', 'serving')"),
            sqlite_where=sa.text("state IN ('intended', 'serving')"),
        )

    op.create_table(
        "generations",
        sa.Column("id", sa.Text(), nullable=False, comment="Rivya's own id"),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("rivya_object", sa.Text(), nullable=False, comment="Rivya's object as last accepted, as JSON"),
        sa.Column("reserved_credits", sa.Float(), nullable=True),
        sa.Column("final_credits", sa.Float(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=True, comment="Rivya's time"),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True, comment="Rivya's time"),
        sa.Column("client_request_id", sa.Text(), nullable=True),
        sa.Column("metadata", sa.Text(), nullable=True, comment="what a caller of ours attached, as JSON"),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_by", sa.Text(), nullable=True),
        sa.Column(
            "callback_received_at", sa.DateTime(timezone=True), nullable=True, comment="the first verified delivery"
        ),
        sa.Column("last_number", sa.SmallInteger(), nullable=False, comment="of its last transition"),
        sa.Column("revision", sa.Integer(), nullable=False, comment="counts writes by record(): a lost race shows"),
        sa.Column("tracking", sa.Text(), nullable=False),
        sa.Column("next_poll_at", sa.DateTime(timezone=True), nullable=True, comment="null: never"),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True, comment="a poller has it until then"),
        sa.Column("polls", sa.Integer(), nullable=False),
        sa.Column("poll_failures", sa.Integer(), nullable=False, comment="in a row"),
        sa.Column("last_poll_error", sa.Text(), nullable=True),
        sa.Column("not_found_count", sa.Integer(), nullable=False, comment="in a row"),
        sa.Column("not_found_since", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(settled_at IS NOT NULL) = (status IN ('succeeded', 'failed'))",
            name=op.f("ck_generations_settled_when_terminal"),
        ),
        sa.CheckConstraint(
            "(tracking = 'settled') = (settled_at IS NOT NULL)", name=op.f("ck_generations_tracking_settled")
        ),
        sa.CheckConstraint(
            "next_poll_at IS NULL OR tracking IN ('watching', 'stalled')", name=op.f("ck_generations_polled_while_open")
        ),
        sa.CheckConstraint(
            "settled_by IN ('submit', 'webhook', 'poll', 'operator')", name=op.f("ck_generations_settled_by")
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'processing', 'succeeded', 'failed')", name=op.f("ck_generations_status")
        ),
        sa.CheckConstraint(
            "tracking IN ('watching', 'settled', 'stalled', 'lost')", name=op.f("ck_generations_tracking")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
    )
    with op.batch_alter_table("generations", schema=None) as batch_op:
        batch_op.create_index(
            "ix_generations_client_request_id",
            ["client_request_id", "first_seen_at", "id"],
            unique=False,
            postgresql_where=sa.text("client_request_id IS NOT NULL"),
            sqlite_where=sa.text("client_request_id IS NOT NULL"),
        )
        batch_op.create_index("ix_generations_first_seen_at_id", ["first_seen_at", "id"], unique=False)
        batch_op.create_index("ix_generations_model_first_seen_at_id", ["model", "first_seen_at", "id"], unique=False)
        batch_op.create_index(
            "ix_generations_next_poll_at",
            ["next_poll_at"],
            unique=False,
            postgresql_where=sa.text("next_poll_at IS NOT NULL"),
            sqlite_where=sa.text("next_poll_at IS NOT NULL"),
        )
        batch_op.create_index("ix_generations_status_first_seen_at_id", ["status", "first_seen_at", "id"], unique=False)
        batch_op.create_index(
            "ix_generations_tracking_first_seen_at_id", ["tracking", "first_seen_at", "id"], unique=False
        )

    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "poll_budget",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "next_slot_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="the next request may leave then, not before",
        ),
        sa.Column("blocked_until", sa.DateTime(timezone=True), nullable=True, comment="Rivya asked for a pause (429)"),
        sa.Column("blocks", sa.Integer(), nullable=False, comment="429 answers in a row"),
        sa.Column("stopped_status", sa.Integer(), nullable=True, comment="401: no call will do; 403: no poll will"),
        sa.Column(
            "stopped_reason", sa.Text(), nullable=True, comment="an error code of Rivya's that says the key won't do"
        ),
        sa.Column(
            "stopped_key", sa.Text(), nullable=True, comment="fingerprint of that key: another one is not stopped"
        ),
        sa.Column("stopped_until", sa.DateTime(timezone=True), nullable=True, comment="one probe is allowed then"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_poll_budget")),
    )
    op.create_table(
        "rejections",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("rejected_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column(
            "endpoint_id",
            sa.Text(),
            nullable=True,
            comment="set when it came to the secret path of an endpoint of ours",
        ),
        sa.Column("size", sa.Integer(), nullable=False, comment="bytes"),
        sa.Column("header_names", sa.Text(), nullable=False, comment="comma separated"),
        sa.Column("remote_address", sa.Text(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=False, comment="SHA-256 of the body, hex"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejections")),
    )
    with op.batch_alter_table("rejections", schema=None) as batch_op:
        batch_op.create_index("ix_rejections_rejected_at", ["rejected_at"], unique=False)

    op.create_table(
        "submissions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False, comment="SHA-256 of the body, hex"),
        sa.Column("request", sa.LargeBinary(), nullable=False, comment="the body, as it is sent"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "is_final",
            sa.Integer(),
            nullable=False,
            comment="1: the answer is given again; 0: asking again sends again",
        ),
        sa.Column("response_status", sa.Integer(), nullable=True),
        sa.Column("response", sa.LargeBinary(), nullable=True),
        sa.Column("response_retry_after", sa.Integer(), nullable=True, comment="seconds"),
        sa.Column("generation_id", sa.Text(), nullable=True),
        sa.Column("submitted_by", sa.Text(), nullable=True, comment="name of the caller's token"),
        sa.Column(
            "attempts",
            sa.Integer(),
            nullable=False,
            comment="numbers the attempts: a late one can't undo a later one",
        ),
        sa.Column("retries", sa.Integer(), nullable=False, comment="by the background, since a caller last sent it"),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False, comment="when a caller last sent it"),
        sa.Column(
            "next_attempt_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when a background retry is due; null: never",
        ),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
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
        sa.CheckConstraint("is_final IN (0, 1)", name=op.f("ck_submissions_is_final")),
        sa.CheckConstraint(
            "state IN ('sending', 'accepted', 'rejected', 'unknown')", name=op.f("ck_submissions_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_submissions")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_submissions_idempotency_key")),
    )
    with op.batch_alter_table("submissions", schema=None) as batch_op:
        batch_op.create_index(
            "ix_submissions_next_attempt_at",
            ["next_attempt_at"],
            unique=False,
            postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
            sqlite_where=sa.text("next_attempt_at IS NOT NULL"),
        )

    op.create_table(
        "endpoint_secrets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False, comment="encrypted, under the key it names"),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_until", sa.DateTime(timezone=True), nullable=True, comment="null: current"),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["endpoints.id"], name=op.f("fk_endpoint_secrets_endpoint_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoint_secrets")),
    )
    with op.batch_alter_table("endpoint_secrets", schema=None) as batch_op:
        batch_op.create_index("ix_endpoint_secrets_endpoint_id", ["endpoint_id"], unique=False)

    op.create_table(
        "transitions",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("generation_id", sa.Text(), nullable=False),
        sa.Column("number", sa.SmallInteger(), nullable=False),
        sa.Column("from_status", sa.Text(), nullable=True),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=True, comment="Rivya's time"),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
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
        sa.ForeignKeyConstraint(
            ["generation_id"], ["generations.id"], name=op.f("fk_transitions_generation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_transitions")),
        sa.UniqueConstraint("generation_id", "number", name=op.f("uq_transitions_generation_id_number")),
        sa.UniqueConstraint("generation_id", "to_status", name=op.f("uq_transitions_generation_id_to_status")),
    )


def downgrade() -> None:
    op.drop_table("transitions")
    with op.batch_alter_table("endpoint_secrets", schema=None) as batch_op:
        batch_op.drop_index("ix_endpoint_secrets_endpoint_id")

    op.drop_table("endpoint_secrets")
    with op.batch_alter_table("submissions", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_submissions_next_attempt_at",
            postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
            sqlite_where=sa.text("next_attempt_at IS NOT NULL"),
        )

    op.drop_table("submissions")
    with op.batch_alter_table("rejections", schema=None) as batch_op:
        batch_op.drop_index("ix_rejections_rejected_at")

    op.drop_table("rejections")
    op.drop_table("poll_budget")
    op.drop_table("leases")
    with op.batch_alter_table("generations", schema=None) as batch_op:
        batch_op.drop_index("ix_generations_tracking_first_seen_at_id")
        batch_op.drop_index("ix_generations_status_first_seen_at_id")
        batch_op.drop_index(
            "ix_generations_next_poll_at",
            postgresql_where=sa.text("next_poll_at IS NOT NULL"),
            sqlite_where=sa.text("next_poll_at IS NOT NULL"),
        )
        batch_op.drop_index("ix_generations_model_first_seen_at_id")
        batch_op.drop_index("ix_generations_first_seen_at_id")
        batch_op.drop_index(
            "ix_generations_client_request_id",
            postgresql_where=sa.text("client_request_id IS NOT NULL"),
            sqlite_where=sa.text("client_request_id IS NOT NULL"),
        )

    op.drop_table("generations")
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_endpoints_state",
            postgresql_where=sa.text("state IN ('intended', 'serving')"),
            sqlite_where=sa.text("state IN ('intended', 'serving')"),
        )

    op.drop_table("endpoints")
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.drop_index("ix_deliveries_received_at_event_id")
        batch_op.drop_index("ix_deliveries_generation_id")

    op.drop_table("deliveries")
