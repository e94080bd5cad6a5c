"""Known events: keys for the deliveries that were there before. Reads `deliveries` once; deliveries go on."""

from collections.abc import Sequence

from alembic import op

revision: str = "p2"
down_revision: str | None = "p1"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("""
        INSERT INTO delivery_keys (event_id, received_at, outcome, attempts)
        SELECT event_id, received_at, outcome, attempts FROM deliveries ON CONFLICT DO NOTHING
    """)


def downgrade() -> None:
    """The keys go with their table."""
