"""First bounds: what is there, and comes until the end of next month, is proven to belong in the first partition.

By a CHECK, which reads both tables once while the service writes; attaching the tables needs no look at them then.
Until the next step is done, nothing can be recorded beyond that moment.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "p3"
down_revision: str | None = "p2"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIMES = {"deliveries": "received_at", "transitions": "recorded_at"}
_BOUND = """
DO $$
DECLARE
    bound timestamptz := (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '2 months') AT TIME ZONE 'UTC';
BEGIN
    EXECUTE format('ALTER TABLE {table} ADD CONSTRAINT {table}_first CHECK ({time} < %L) NOT VALID', bound);
    EXECUTE format('COMMENT ON CONSTRAINT {table}_first ON {table} IS %L', bound);
END $$
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():  # a lock for each, for a moment, and none while the table is read
        for table, time in _TIMES.items():
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_first")
            op.execute(_BOUND.format(table=table, time=time))
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {table}_first")


def downgrade() -> None:
    for table in _TIMES:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_first")  # gone where months were undone
