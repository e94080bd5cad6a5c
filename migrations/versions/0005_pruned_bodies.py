"""Pruned bodies: when a delivery's body was emptied for its age.

Deliveries can be many. On both databases the column is added without rewriting the table, since it has no default, and
the index holds pruned deliveries only: there are none yet, so building it reads the table once and writes nothing.
PostgreSQL keeps deliveries from being written while it reads: some seconds for ten million rows. Code of the release
before this one neither reads nor writes the column.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_PRUNED = sa.text("body_pruned_at IS NOT NULL")


def upgrade() -> None:
    column = sa.Column(
        "body_pruned_at",
        sa.DateTime(timezone=True),
        nullable=True,
        comment="its body and headers were emptied then; null: they are there",
    )
    op.add_column("deliveries", column)
    op.create_index(
        "ix_deliveries_body_pruned_at",
        "deliveries",
        ["body_pruned_at"],
        unique=False,
        postgresql_where=_PRUNED,
        sqlite_where=_PRUNED,
    )


def downgrade() -> None:
    op.drop_index("ix_deliveries_body_pruned_at", table_name="deliveries")
    op.drop_column("deliveries", "body_pruned_at")
