"""generations remember the token that submitted them"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.batch_alter_table("generations", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "submitted_by",
                sa.Text(),
                nullable=True,
                comment="name of the token that submitted it; null: not submitted through us",
            )
        )
    # Submissions have known it from the start; they tell it for what is there.
    op.execute(
        "UPDATE generations SET submitted_by = submissions.submitted_by "
        "FROM submissions WHERE submissions.generation_id = generations.id"
    )
    with op.batch_alter_table("generations", schema=None) as batch_op:
        batch_op.create_index(
            "ix_generations_submitted_by",
            ["submitted_by", "first_seen_at", "id"],
            unique=False,
            postgresql_where=sa.text("submitted_by IS NOT NULL"),
            sqlite_where=sa.text("submitted_by IS NOT NULL"),
        )


def downgrade() -> None:
    with op.batch_alter_table("generations", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_generations_submitted_by",
            postgresql_where=sa.text("submitted_by IS NOT NULL"),
            sqlite_where=sa.text("submitted_by IS NOT NULL"),
        )
    # Not in a batch: SQLite would rebuild the table, and dropping the old one takes the transitions with it.
    op.drop_column("generations", "submitted_by")
