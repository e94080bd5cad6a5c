"""The state of the event feed: the key of its cursors, and how far rows have been removed from it; new tables only."""

import secrets
from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    feed = op.create_table(
        "feed",
        sa.Column("name", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("cursor_key", sa.Text(), nullable=False, comment="signs the cursors, as hex"),
        sa.Column(
            "removed_through",
            sa.BigInteger(),
            nullable=False,
            comment="the last position of which a transition was removed; 0: none",
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_feed")),
    )
    op.bulk_insert(feed, [{"name": "events", "cursor_key": secrets.token_hex(32), "removed_through": 0}])


def downgrade() -> None:
    op.drop_table("feed")
