"""Which alarms are raised, for all replicas together; new tables only."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "alarm_states",
        sa.Column("alarm", _ID, nullable=False),
        sa.Column("is_raised", sa.Integer(), nullable=False),
        sa.Column("changed_at", _TIME, nullable=False),
        sa.Column("seen_at", _TIME, nullable=False, comment="when a replica last found it raised"),
        sa.CheckConstraint("is_raised IN (0, 1)", name=op.f("ck_alarm_states_is_raised")),
        sa.PrimaryKeyConstraint("alarm", name=op.f("pk_alarm_states")),
    )


def downgrade() -> None:
    op.drop_table("alarm_states")
