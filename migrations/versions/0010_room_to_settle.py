"""More room in the pages of generations: all rows of a page can then settle in one commit and stay in it.

It holds for pages that are written from now on; nothing is rewritten, and nobody waits.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    _set_fillfactor(42)


def downgrade() -> None:
    _set_fillfactor(50)


def _set_fillfactor(percent: int) -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE generations SET (fillfactor = {percent})")
