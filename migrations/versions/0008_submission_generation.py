"""An index of creates by the generation that they made.

Creates wait while PostgreSQL builds it: about a second for a million rows.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_NAME = "ix_submissions_generation_id"
_ACCEPTED = sa.text("generation_id IS NOT NULL")


def upgrade() -> None:
    op.create_index(_NAME, "submissions", ["generation_id"], postgresql_where=_ACCEPTED, sqlite_where=_ACCEPTED)


def downgrade() -> None:
    op.drop_index(_NAME, "submissions")
