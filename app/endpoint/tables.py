"""The tables of our endpoints at Rivya, their secrets and their history."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, Text, text

from app.core.database import Id, UtcDateTime, enum_check, metadata
from app.endpoint.models import State

ONE_EACH = text("state IN ('intended', 'created', 'proven', 'serving', 'manual')")
_CURRENT = text("valid_until IS NULL")

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", Id, primary_key=True),
    Column(
        "path_key", Id, nullable=False, unique=True, comment="the random end of the callback path: proof it is ours"
    ),
    Column("url", Text, nullable=False),
    Column("rivya_id", Id, unique=True),
    Column("state", Text, nullable=False),
    Column("state_since", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("create_attempted_at", UtcDateTime, comment="a create was sent then, and what came of it is not known"),
    Column("rotation_requested_at", UtcDateTime, comment="a new secret is wanted since then"),
    Column("rotation_attempted_at", UtcDateTime, comment="a rotation was sent then, and what came of it is not known"),
    Column("test_asked_at", UtcDateTime, comment="a test delivery was asked for then"),
    Column("scheme", Text, comment="the signature scheme, pinned by proof"),
    Column("proven_at", UtcDateTime, comment="when the scheme was pinned"),
    Column("proven_by", Text, comment="the event whose delivery proved it"),
    Column("other_scheme", Text, comment="what deliveries proved while another was pinned"),
    Column("other_scheme_count", Integer, nullable=False, server_default=text("0")),
    Column("last_verified_at", UtcDateTime, comment="the last delivery that its secret verified"),
    Column("last_refused_at", UtcDateTime, comment="the last refusal at its secret path"),
    Column("refusals", Integer, nullable=False, comment="at its secret path, since the last verified delivery"),
    Column("last_error", Text, comment="why the last call to Rivya about it failed"),
    Column("failure_count", Integer, nullable=False, server_default=text("0"), comment="as Rivya counts"),
    Column("last_success_at", UtcDateTime, comment="as Rivya tells"),
    Column("last_failure_at", UtcDateTime, comment="as Rivya tells"),
    enum_check("state", State),
    # At most one row is in each of these states, even if two processes believe that they hold the lease.
    Index("uq_endpoints_state", "state", unique=True, postgresql_where=ONE_EACH, sqlite_where=ONE_EACH),
)

endpoint_secrets = Table(
    "endpoint_secrets",
    metadata,
    Column("id", Id, primary_key=True),
    Column("endpoint_id", Id, ForeignKey("endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("sealed", Text, nullable=False, comment="encrypted, under the key it names"),
    Column("valid_from", UtcDateTime, nullable=False),
    Column("valid_until", UtcDateTime, comment="null: current"),
    Column("proven_at", UtcDateTime, comment="the first delivery that it verified"),
    Index("ix_endpoint_secrets_endpoint_id", "endpoint_id"),
    Index("uq_endpoint_secrets_current", "endpoint_id", unique=True, postgresql_where=_CURRENT, sqlite_where=_CURRENT),
)

endpoint_history = Table(
    "endpoint_history",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("endpoint_id", Id, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("event", Text, nullable=False),
    Column("detail", Text, comment="a code or a scheme; never a secret, a path key or a body"),
)
