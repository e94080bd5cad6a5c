"""The sessions of people who signed in to the console: new tables only."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the id in the cookie"),
        sa.Column("token_digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the token that signed in"),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("used_at", _TIME, nullable=False, comment="noted once a minute"),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_sessions")),
    )
    op.create_index("ix_sessions_token_digest", "sessions", ["token_digest"])
    op.create_index("ix_sessions_used_at", "sessions", ["used_at"])


def downgrade() -> None:
    op.drop_table("sessions")
