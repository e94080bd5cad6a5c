"""Programs' webhook endpoints, callbacks of single jobs, and what is sent to both; new tables only."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _create_subscriptions()
    _create_notifications()
    op.create_table(
        "callbacks",
        sa.Column("generation_id", _ID, nullable=False),
        sa.Column("token", _ID, nullable=False, comment="name of the token that asked for it"),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("generation_id", "token", name=op.f("pk_callbacks")),
    )
    dispatch = op.create_table(
        "notification_dispatch",
        sa.Column("name", _ID, nullable=False),
        sa.Column(
            "cursor",
            sa.Text(),
            comment="the place in the feed up to which notifications are written; null: nobody asks",
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_notification_dispatch")),
    )
    op.bulk_insert(dispatch, [{"name": "events", "cursor": None}])


def _create_subscriptions() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("id", _ID, nullable=False),
        sa.Column("token", _ID, nullable=False, comment="name of the token that it belongs to"),
        sa.Column("owner", _ID, comment="the token, if it gets only its own generations"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_types", sa.Text(), nullable=False, comment="as JSON"),
        sa.Column("model", _ID, comment="only generations of this model; null: all"),
        sa.Column("submitted_by", _ID, comment="only generations that this token submitted; null: all"),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False, comment="encrypted"),
        sa.Column("secret_preview", sa.Text(), nullable=False),
        sa.Column("previous_secret", sa.Text(), comment="encrypted; it signs too for some time after `rotated_at`"),
        sa.Column("rotated_at", _TIME),
        sa.Column(
            "begins_after",
            sa.BigInteger(),
            nullable=False,
            comment="the position in the feed at which it was created",
        ),
        sa.Column("failure_count", sa.Integer(), nullable=False, comment="in a row"),
        sa.Column("failing_since", _TIME, comment="the first failure in a row"),
        sa.Column("last_success_at", _TIME),
        sa.Column("last_failure_at", _TIME),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("disabled_at", _TIME),
        sa.Column("revoked_at", _TIME),
        sa.CheckConstraint(
            "status IN ('active', 'paused', 'disabled', 'revoked')", name=op.f("ck_subscriptions_status")
        ),
        sa.CheckConstraint(
            "(revoked_at IS NOT NULL) = (status = 'revoked')", name=op.f("ck_subscriptions_revoked_when_revoked")
        ),
        sa.CheckConstraint("failure_count >= 0", name=op.f("ck_subscriptions_failures_counted")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscriptions")),
    )
    op.create_index("ix_subscriptions_token", "subscriptions", ["token"])


def _create_notifications() -> None:
    op.create_table(
        "notifications",
        sa.Column("id", _ID, nullable=False),
        sa.Column("queue", _ID, nullable=False, comment="the endpoint, or `callbacks:` and the token"),
        sa.Column("subscription_id", _ID, comment="null: a callback of one job"),
        sa.Column("callback_url", sa.Text()),
        sa.Column("token", _ID, nullable=False, comment="name of the token that it belongs to"),
        sa.Column("event_id", _ID, nullable=False),
        sa.Column("event_type", _ID, nullable=False),
        sa.Column("generation_id", _ID),
        sa.Column(
            "number", sa.SmallInteger(), nullable=False, comment="of the transition; the order within the generation"
        ),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, comment="when it was delivered, given up or canceled"),
        sa.Column("next_attempt_at", _TIME, comment="null: none is to be made"),
        sa.Column("lease_until", _TIME, comment="a sender has it until then"),
        sa.Column("attempts", sa.SmallInteger(), nullable=False, comment="since it was last made due by hand"),
        sa.Column("response_status", sa.SmallInteger(), comment="of the last attempt; null: no answer"),
        sa.Column("error", sa.Text(), comment="of the last attempt, or why it ended"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt_log", sa.Text(), nullable=False, comment="the newest attempts, as JSON"),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'held', 'delivered', 'dead', 'canceled')", name=op.f("ck_notifications_state")
        ),
        sa.CheckConstraint(
            "(subscription_id IS NULL) <> (callback_url IS NULL)", name=op.f("ck_notifications_one_receiver")
        ),
        sa.CheckConstraint(
            "(next_attempt_at IS NOT NULL) = (state = 'pending')", name=op.f("ck_notifications_due_while_pending")
        ),
        sa.CheckConstraint(
            "(ended_at IS NOT NULL) = (state IN ('delivered', 'dead', 'canceled'))",
            name=op.f("ck_notifications_ended_when_over"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
        sa.UniqueConstraint("queue", "event_id", name=op.f("uq_notifications_queue_event_id")),
    )
    for name, columns, where in (
        ("due", ["queue", "next_attempt_at"], "state = 'pending'"),
        ("leased", ["queue"], "lease_until IS NOT NULL"),
        ("waiting", ["queue", "generation_id", "number"], "state IN ('pending', 'held') AND generation_id IS NOT NULL"),
        ("open", ["created_at"], "state IN ('pending', 'held')"),
        ("not_delivered", ["id"], "state <> 'delivered'"),
        ("ended_at", ["ended_at"], "ended_at IS NOT NULL"),
        ("generation_id", ["generation_id"], "generation_id IS NOT NULL"),
        ("subscription_id_id", ["subscription_id", "id"], None),
        ("token_id", ["token", "id"], None),
    ):
        condition = None if where is None else sa.text(where)
        op.create_index(
            f"ix_notifications_{name}",
            "notifications",
            columns,
            postgresql_where=condition,
            sqlite_where=condition,
        )


def downgrade() -> None:
    for name in ("notification_dispatch", "callbacks", "notifications", "subscriptions"):
        op.drop_table(name)
