"""endpoint lives: proofs, rotations, what Rivya tells, and a history"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIMES = (
    ("state_since", None),
    ("rotation_requested_at", "a new secret is wanted since then"),
    ("rotation_attempted_at", "a rotation was sent then, and what came of it is not known"),
    ("test_asked_at", "a test delivery was asked for then"),
    ("proven_at", "when the scheme was pinned"),
    ("last_success_at", "as Rivya tells"),
    ("last_failure_at", "as Rivya tells"),
)
_BEFORE = "state IN ('intended', 'created', 'proven', 'serving', 'retiring', 'retired')"
_AFTER = "state IN ('intended', 'created', 'proven', 'serving', 'retiring', 'retired', 'manual')"
_ONE_EACH_BEFORE = sa.text("state IN ('intended', 'serving')")
_ONE_EACH_AFTER = sa.text("state IN ('intended', 'created', 'proven', 'serving', 'manual')")
_CURRENT = sa.text("valid_until IS NULL")


def upgrade() -> None:
    op.drop_index("uq_endpoints_state", "endpoints")
    with _secrets_kept(), op.batch_alter_table("endpoints") as batch_op:
        for name, comment in _TIMES:
            batch_op.add_column(sa.Column(name, sa.DateTime(timezone=True), nullable=True, comment=comment))
        batch_op.add_column(sa.Column("proven_by", sa.Text(), comment="the event whose delivery proved it"))
        batch_op.add_column(
            sa.Column("other_scheme", sa.Text(), comment="what deliveries proved while another was pinned")
        )
        for name, comment in (("other_scheme_count", None), ("failure_count", "as Rivya counts")):
            counted = sa.Column(name, sa.Integer(), nullable=False, server_default=sa.text("0"), comment=comment)
            batch_op.add_column(counted)
        batch_op.alter_column("scheme", existing_type=sa.Text(), comment="the signature scheme, pinned by proof")
        batch_op.drop_constraint(op.f("ck_endpoints_state"), type_="check")
        batch_op.create_check_constraint(op.f("ck_endpoints_state"), _AFTER)
    op.create_index(
        "uq_endpoints_state",
        "endpoints",
        ["state"],
        unique=True,
        postgresql_where=_ONE_EACH_AFTER,
        sqlite_where=_ONE_EACH_AFTER,
    )
    op.add_column(
        "endpoint_secrets",
        sa.Column("proven_at", sa.DateTime(timezone=True), comment="the first delivery that it verified"),
    )
    op.create_index(
        "uq_endpoint_secrets_current",
        "endpoint_secrets",
        ["endpoint_id"],
        unique=True,
        postgresql_where=_CURRENT,
        sqlite_where=_CURRENT,
    )
    op.create_table(
        "endpoint_history",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), comment="a code or a scheme; never a secret, a path key or a body"),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_endpoint_history")),
    )


def downgrade() -> None:
    op.drop_table("endpoint_history")
    op.drop_index("uq_endpoint_secrets_current", "endpoint_secrets")
    op.drop_column("endpoint_secrets", "proven_at")
    op.drop_index("uq_endpoints_state", "endpoints")
    # What the code before knows: one endpoint that serves, and none that was made by hand.
    op.execute("DELETE FROM endpoints WHERE state = 'manual'")
    op.execute("UPDATE endpoints SET state = 'serving' WHERE state IN ('created', 'proven')")
    with _secrets_kept(), op.batch_alter_table("endpoints") as batch_op:
        batch_op.drop_constraint(op.f("ck_endpoints_state"), type_="check")
        batch_op.create_check_constraint(op.f("ck_endpoints_state"), _BEFORE)
        batch_op.alter_column("scheme", existing_type=sa.Text(), comment="the signature scheme, pinned")
        for name in ("failure_count", "other_scheme_count", "other_scheme", "proven_by"):
            batch_op.drop_column(name)
        for name, _ in reversed(_TIMES):
            batch_op.drop_column(name)
    op.create_index(
        "uq_endpoints_state",
        "endpoints",
        ["state"],
        unique=True,
        postgresql_where=_ONE_EACH_BEFORE,
        sqlite_where=_ONE_EACH_BEFORE,
    )


@contextmanager
def _secrets_kept() -> Iterator[None]:
    """SQLite can only rebuild `endpoints`, and dropping the old table takes the secrets with it: they are put aside."""
    if op.get_bind().dialect.name != "sqlite":
        yield
        return
    op.execute("CREATE TEMPORARY TABLE kept_secrets AS SELECT * FROM endpoint_secrets")
    op.execute("DELETE FROM endpoint_secrets")
    yield
    op.execute("INSERT INTO endpoint_secrets SELECT * FROM kept_secrets")
    op.execute("DROP TABLE kept_secrets")
