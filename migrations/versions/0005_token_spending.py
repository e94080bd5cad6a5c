"""What tokens with limits have reserved and spent: new tables only."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True)
_KNOWN = sa.text("generation_id IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "token_spending",
        sa.Column("token", _ID, nullable=False),
        sa.Column("period", _ID, nullable=False, comment="a day like 2026-05-10 or a month like 2026-05, in UTC"),
        sa.Column("reserved", sa.BigInteger(), nullable=False, comment="millionths of a credit"),
        sa.Column("spent", sa.BigInteger(), nullable=False, comment="millionths of a credit"),
        sa.PrimaryKeyConstraint("token", "period", name=op.f("pk_token_spending")),
    )
    op.create_table(
        "token_charges",
        sa.Column("id", _ID, nullable=False, comment="of the submission, or of the chat turn"),
        sa.Column("token", _ID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False, comment="to which it counts, with its month"),
        sa.Column("amount", sa.BigInteger(), nullable=False, comment="reserved, in millionths of a credit"),
        sa.Column("generation_id", _ID, comment="null: not known yet"),
        sa.Column(
            "spent",
            sa.BigInteger(),
            comment="what a turn with an Idempotency-Key has cost: it may be repeated",
        ),
        sa.Column("created_at", _TIME, nullable=False),
        sa.CheckConstraint("kind IN ('generation', 'turn')", name=op.f("ck_token_charges_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token_charges")),
    )
    op.create_index(
        "ix_token_charges_generation_id",
        "token_charges",
        ["generation_id"],
        postgresql_where=_KNOWN,
        sqlite_where=_KNOWN,
    )
    op.create_table(
        "token_rates",
        sa.Column("token", _ID, nullable=False),
        sa.Column("minute", _TIME, nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False, comment="creates and chat turns in this minute"),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_token_rates")),
    )


def downgrade() -> None:
    for name in ("token_rates", "token_charges", "token_spending"):
        op.drop_table(name)
