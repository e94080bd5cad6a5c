"""Managed tokens, and the audit: new tables only."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True)
_CREDITS = sa.Numeric(asdecimal=False)


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column(
            "name", _ID, nullable=False, comment="never used again: what the token submitted belongs to this name"
        ),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("credits_per_day", _CREDITS),
        sa.Column("credits_per_month", _CREDITS),
        sa.Column("models", sa.Text(), comment="those it may use, as JSON; null: all"),
        sa.Column("rate", sa.Integer(), comment="creates and chat turns a minute"),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", _TIME),
        sa.Column("revoked_at", _TIME),
        sa.Column("last_used_at", _TIME, comment="noted once a minute"),
        sa.CheckConstraint("role IN ('read', 'write', 'admin', 'read-own', 'write-own')", name=op.f("ck_tokens_role")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tokens")),
    )
    op.create_table(
        "token_secrets",
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the token"),
        sa.Column("name", _ID, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("valid_until", _TIME, comment="null: current"),
        sa.ForeignKeyConstraint(["name"], ["tokens.name"], name=op.f("fk_token_secrets_name"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_token_secrets")),
    )
    op.create_index("ix_token_secrets_name", "token_secrets", ["name"])
    revision_table = op.create_table(
        "token_revision",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_token_revision_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token_revision")),
    )
    op.bulk_insert(revision_table, [{"id": 1, "revision": 0}])
    op.create_table(
        "audit",
        sa.Column("id", _ID, nullable=False),
        sa.Column("recorded_at", _TIME, nullable=False),
        sa.Column("actor", _ID, nullable=False, comment="name of the token, or `command line`"),
        sa.Column("action", _ID, nullable=False, comment="such as token.created"),
        sa.Column("target", _ID, comment="the name or id of what was acted upon"),
        sa.Column("detail", sa.Text(), comment="never a secret"),
        sa.Column("remote_address", sa.Text()),
        sa.Column("request_id", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_recorded_at", "audit", ["recorded_at"])


def downgrade() -> None:
    for name in ("audit", "token_revision", "token_secrets", "tokens"):
        op.drop_table(name)
