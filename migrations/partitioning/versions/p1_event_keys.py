"""Event keys: one narrow table in which every event is known once, whichever month its delivery is kept in.

A unique key of a partitioned table has to hold what it is partitioned by, so `deliveries` alone could not refuse the
second coming of an event in another month. From here on triggers keep the new table in step.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "p1"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_KEYS = """
CREATE TABLE delivery_keys (
    event_id text CONSTRAINT pk_delivery_keys PRIMARY KEY,
    received_at timestamptz NOT NULL,
    outcome text NOT NULL,
    attempts integer NOT NULL
)
"""
_COUNT = """
CREATE FUNCTION receiver_count_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE deliveries SET attempts = attempts + NEW.attempts - OLD.attempts
    WHERE event_id = NEW.event_id AND received_at = NEW.received_at;
    RETURN NULL;
END $$
"""
_COUNTED = """
CREATE TRIGGER count_attempts AFTER UPDATE OF attempts ON delivery_keys
FOR EACH ROW EXECUTE FUNCTION receiver_count_attempts()
"""
_FOLLOW = """
CREATE FUNCTION receiver_keys_follow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO delivery_keys (event_id, received_at, outcome, attempts)
    SELECT event_id, received_at, outcome, attempts FROM came ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$
"""
_FORGET = """
CREATE FUNCTION receiver_keys_forget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM delivery_keys USING gone WHERE delivery_keys.event_id = gone.event_id;
    RETURN NULL;
END $$
"""
_FOLLOWED = """
CREATE TRIGGER keys_follow AFTER INSERT ON deliveries
REFERENCING NEW TABLE AS came FOR EACH STATEMENT EXECUTE FUNCTION receiver_keys_follow()
"""
_FORGOTTEN = """
CREATE TRIGGER keys_forget AFTER DELETE ON deliveries
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION receiver_keys_forget()
"""


def upgrade() -> None:
    for statement in (_KEYS, _COUNT, _COUNTED, _FOLLOW, _FORGET, _FOLLOWED, _FORGOTTEN):
        op.execute(statement)


def downgrade() -> None:
    op.execute("LOCK TABLE generations, delivery_keys, deliveries IN ACCESS EXCLUSIVE MODE")  # as recording does
    op.execute("DROP TRIGGER keys_follow ON deliveries")
    op.execute("DROP TRIGGER keys_forget ON deliveries")
    op.execute("DROP TABLE delivery_keys")
    for name in ("count_attempts", "keys_follow", "keys_forget"):
        op.execute(f"DROP FUNCTION receiver_{name}()")
