"""Months: `deliveries` and `transitions` become partitioned; the tables that were there are the first partitions.

Nothing is copied: names and bounds change, under a lock for some milliseconds. The default partition takes what comes
when nobody made a month for it, and is what every month is made like. Going down copies all rows into whole tables.
"""

from collections.abc import Sequence

from alembic import op

from migrations.partitioning.functions import AHEAD, BOUNDS, DROP, DROPPED, FORGET, PARTITION, WHOLE

revision: str = "p4"
down_revision: str | None = "p3"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_LOCK = "LOCK TABLE generations, delivery_keys, deliveries, transitions IN ACCESS EXCLUSIVE MODE"
_FORGOTTEN = """
CREATE TRIGGER keys_forget AFTER DELETE ON deliveries
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION receiver_keys_forget()
"""
_FOLLOWED = """
CREATE TRIGGER keys_follow AFTER INSERT ON deliveries
REFERENCING NEW TABLE AS came FOR EACH STATEMENT EXECUTE FUNCTION receiver_keys_follow()
"""
_TIMES = {"deliveries": "received_at", "transitions": "recorded_at"}


def upgrade() -> None:
    op.execute(_LOCK)  # in the order in which recording takes them
    op.execute("DROP TRIGGER keys_follow ON deliveries")
    op.execute("DROP TRIGGER keys_forget ON deliveries")
    for statement in (PARTITION, BOUNDS, AHEAD, DROPPED, DROP, FORGET):
        op.execute(statement)
    for table, time in _TIMES.items():
        op.execute(f"SELECT receiver_partition('{table}', '{time}')")
    op.execute("DROP FUNCTION receiver_partition(text, text)")
    op.execute("ALTER SEQUENCE transitions_sequence_seq OWNED BY transitions.sequence")
    op.execute(_FORGOTTEN)


def downgrade() -> None:
    op.execute(_LOCK)
    op.execute(WHOLE)
    for table in _TIMES:
        op.execute(f"SELECT receiver_make_whole('{table}')")
    op.execute("DROP FUNCTION receiver_make_whole(text)")
    op.execute("DROP VIEW receiver_partitions")
    op.execute("DROP TABLE dropped_partitions")
    for name in ("partitions_ahead(integer)", "partitions_drop(timestamptz)", "events_forget(interval)"):
        op.execute(f"DROP FUNCTION receiver_{name}")
    op.execute(_FOLLOWED)
    op.execute(_FORGOTTEN)
