"""The name of the token that first tracked a generation."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TRACKED = sa.text("tracked_by IS NOT NULL")


def upgrade() -> None:
    comment = "name of the token that first tracked it while it was nobody's"
    op.add_column("generations", sa.Column("tracked_by", _ID, comment=comment))
    op.create_index(
        "ix_generations_tracked_by",
        "generations",
        ["tracked_by", "first_seen_at", "id"],
        postgresql_where=_TRACKED,
        sqlite_where=_TRACKED,
    )


def downgrade() -> None:
    op.drop_index("ix_generations_tracked_by", "generations")
    op.drop_column("generations", "tracked_by")
