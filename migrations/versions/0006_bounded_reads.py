"""Bounded reads: indexes for what is rare, and usage summed as it changes.

Deliveries that were applied, and those of `generation.succeeded`, are in none of the new indexes; settled generations
leave the one about tracking. Usage is counted by triggers, so that code of the release before this one counts too.
PostgreSQL keeps generations and deliveries from being written while it builds the indexes and sums what is there: ten
to thirty seconds for five million rows of each. Rivya delivers again what is answered 503 meanwhile. Code of the
release before this one lists settled generations more slowly, and is right.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_OPEN = sa.text("tracking <> 'settled'")
_NOT_APPLIED = sa.text("outcome <> 'applied'")
_NOT_SUCCEEDED = sa.text("event_type <> 'generation.succeeded'")
_RETRIED = sa.text("next_attempt_at IS NOT NULL")
_TRACKING = "ix_generations_tracking_first_seen_at_id"
_COLUMNS = "hour, submitted_by, model, generations, open, reserved_credits, final_credits"

# The cheapest that there is: this is done for every delivery. Floats are summed within one statement only, and cut to
# 15 digits then; the sums themselves are exact.
_IN_UTC = "date_bin('1 hour', first_seen_at, '2000-01-01 00:00:00+00')"
_SUMMED = f"""
SELECT {_IN_UTC}, submitted_by, model, {{n}}, {{n}} FILTER (WHERE settled_at IS NULL),
    coalesce({{reserved}}, 0), coalesce({{final}}, 0) FROM {{source}} GROUP BY 1, 2, 3
"""  # noqa: S608
_COUNTED = {
    "n": "count(*)",
    "reserved": "sum(reserved_credits)",
    "final": "sum(final_credits)",
}
_TAKEN = {
    "n": "-count(*)",
    "reserved": "-sum(reserved_credits)",
    "final": "-sum(final_credits)",
}
# A claim, or a poll that brought nothing, changes nothing here: what is left after taking away is nothing.
_EACH = f"""
SELECT {_IN_UTC} AS hour, submitted_by, model, settled_at,
    reserved_credits AS reserved, final_credits AS final
"""
_CHANGED = f"""
SELECT * FROM (
    SELECT hour, submitted_by, model, sum(n) AS n, coalesce(sum(n) FILTER (WHERE settled_at IS NULL), 0) AS open,
        round(coalesce(sum(n * reserved), 0)::numeric, 9) AS reserved,
        round(coalesce(sum(n * final), 0)::numeric, 9) AS final
    FROM ({_EACH}, 1 AS n FROM added UNION ALL {_EACH}, -1 AS n FROM removed) AS each GROUP BY 1, 2, 3
) AS changed WHERE (n, open, reserved, final) <> (0, 0, 0, 0)
"""  # noqa: S608
_FUNCTION = f"""
CREATE FUNCTION count_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO usage_changes ({_COLUMNS}) {_SUMMED.format(source="added", **_COUNTED)};
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO usage_changes ({_COLUMNS}) {_SUMMED.format(source="removed", **_TAKEN)};
    ELSIF EXISTS (SELECT FROM added) THEN
        INSERT INTO usage_changes ({_COLUMNS}) {_CHANGED};
    END IF;
    RETURN NULL;
END $$
"""
_TRIGGERS = {
    "INSERT": "NEW TABLE AS added",
    "UPDATE": "OLD TABLE AS removed NEW TABLE AS added",
    "DELETE": "OLD TABLE AS removed",
}

_HOUR = "substr({0}.first_seen_at, 1, 13) || ':00:00.000000'"
_ROW = (
    f"{_HOUR}, {{0}}.submitted_by, {{0}}.model, {{1}}1, {{1}}({{0}}.settled_at IS NULL), "
    "{1}coalesce({0}.reserved_credits, 0), {1}coalesce({0}.final_credits, 0)"
)
_ADD = f"INSERT INTO usage_changes ({_COLUMNS}) VALUES ({_ROW.format('NEW', '')}); "  # noqa: S608
_TAKE = f"INSERT INTO usage_changes ({_COLUMNS}) VALUES ({_ROW.format('OLD', '-')}); "  # noqa: S608
_DIFFERS = " OR ".join(
    f"OLD.{name} IS NOT NEW.{name}"
    for name in ("submitted_by", "model", "settled_at", "reserved_credits", "final_credits")
)
_SQLITE = {
    "INSERT": f"AFTER INSERT ON generations BEGIN {_ADD}END",
    "UPDATE": f"AFTER UPDATE ON generations WHEN {_DIFFERS} BEGIN {_TAKE}{_ADD}END",
    "DELETE": f"AFTER DELETE ON generations BEGIN {_TAKE}END",
}


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SET LOCAL statement_timeout = 0")
    op.drop_index(_TRACKING, table_name="generations")
    _partial(_TRACKING, "generations", ["tracking", "first_seen_at", "id"], where=_OPEN)
    _partial("ix_deliveries_outcome", "deliveries", ["outcome", "received_at", "event_id"], where=_NOT_APPLIED)
    _partial("ix_deliveries_event_type", "deliveries", ["event_type", "received_at", "event_id"], where=_NOT_SUCCEEDED)
    _partial("ix_submissions_created_at", "submissions", ["created_at"], where=_RETRIED)
    for name in ("usage_hours", "usage_changes"):
        op.create_table(name, *_columns(name), sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")))
    op.create_index("ix_usage_hours_hour", "usage_hours", ["hour"])
    _count()


def _partial(name: str, table: str, columns: list[str], *, where: sa.TextClause) -> None:
    op.create_index(name, table, columns, unique=False, postgresql_where=where, sqlite_where=where)


def _columns(table: str) -> list[sa.Column[object]]:
    more = {
        "usage_hours": "several rows may be about the same; they add up",
        "usage_changes": "more of them; less than 0: fewer",
    }
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return [
        sa.Column("id", number, autoincrement=True, nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False, comment="of first_seen_at, in UTC"),
        sa.Column("submitted_by", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("generations", sa.Integer(), nullable=False, comment=more[table]),
        sa.Column("open", sa.Integer(), nullable=False, comment="those without an outcome"),
        sa.Column("reserved_credits", sa.Numeric(), nullable=False),
        sa.Column("final_credits", sa.Numeric(), nullable=False),
    ]


def _count() -> None:
    """Count from now on, and what is there: one transaction, so that nothing is counted twice or left out."""
    say = op.get_bind().exec_driver_sql  # what looks like a parameter here is none
    if op.get_bind().dialect.name == "sqlite":
        for event, does in _SQLITE.items():
            say(f"CREATE TRIGGER generations_usage_{event.lower()} {does}")
        row = _ROW.format("generations", "")
        each = f"SELECT {row} FROM generations"  # noqa: S608
        names = _COLUMNS.split(", ")
        summed = ", ".join((*names[:3], *(f"sum({name})" for name in names[3:])))
        say(
            f"INSERT INTO usage_hours ({_COLUMNS}) WITH counted ({_COLUMNS}) AS ({each}) "  # noqa: S608
            f"SELECT {summed} FROM counted GROUP BY 1, 2, 3"
        )
        return
    say(_FUNCTION)
    for event, tables in _TRIGGERS.items():
        say(
            f"CREATE TRIGGER generations_usage_{event.lower()} AFTER {event} ON generations "
            f"REFERENCING {tables} FOR EACH STATEMENT EXECUTE FUNCTION count_usage()"
        )
    say(f"INSERT INTO usage_hours ({_COLUMNS}) {_SUMMED.format(source='generations', **_COUNTED)}")


def downgrade() -> None:
    on_table = " ON generations" if op.get_bind().dialect.name == "postgresql" else ""
    for event in _TRIGGERS:
        op.execute(f"DROP TRIGGER generations_usage_{event.lower()}{on_table}")
    if on_table:
        op.execute("DROP FUNCTION count_usage()")
    op.drop_table("usage_changes")
    op.drop_index("ix_usage_hours_hour", table_name="usage_hours")
    op.drop_table("usage_hours")
    op.drop_index("ix_submissions_created_at", table_name="submissions")
    op.drop_index("ix_deliveries_event_type", table_name="deliveries")
    op.drop_index("ix_deliveries_outcome", table_name="deliveries")
    op.drop_index(_TRACKING, table_name="generations")
    op.create_index(_TRACKING, "generations", ["tracking", "first_seen_at", "id"], unique=False)
