"""Our endpoints at Rivya and their secrets; an intent is written here before any call is made."""

from sqlalchemy import Column, ForeignKey, Index, Integer, Table, Text, text

from app.core.schema import Moment, metadata, one_of
from app.endpoint.state import State

_ONE_EACH = text("state IN ('intended', 'serving')")


endpoints = Table(
    "endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column(
        "path_key", Text, nullable=False, unique=True, comment="the random end of the callback path: proof it is ours"
    ),
    Column("url", Text, nullable=False),
    Column("rivya_id", Text, unique=True),
    Column("state", Text, nullable=False),
    Column("scheme", Text, comment="the signature scheme, pinned"),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("create_attempted_at", Moment, comment="a create was sent then, and what came of it is not known"),
    Column("last_verified_at", Moment, comment="the last delivery that its secret verified"),
    Column("last_refused_at", Moment, comment="the last refusal at its secret path"),
    Column("refusals", Integer, nullable=False, comment="at its secret path, since the last verified delivery"),
    Column("last_error", Text, comment="why the last call to Rivya about it failed"),
    one_of("state", State),
    # At most one row is intended and at most one is serving, whatever happens to the lease.
    Index("uq_endpoints_state", "state", unique=True, postgresql_where=_ONE_EACH, sqlite_where=_ONE_EACH),
)

endpoint_secrets = Table(
    "endpoint_secrets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("endpoint_id", Text, ForeignKey("endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("sealed", Text, nullable=False, comment="encrypted, under the key it names"),
    Column("valid_from", Moment, nullable=False),
    Column("valid_until", Moment, comment="null: current"),
    Index("ix_endpoint_secrets_endpoint_id", "endpoint_id"),
)
