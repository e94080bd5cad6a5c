"""The rejections table: a bounded sample of refused deliveries, without their bodies."""

from sqlalchemy import Column, Index, Integer, Table, Text

from app.core.database import Moment, metadata

rejections = Table(
    "rejections",
    metadata,
    Column("id", Text, primary_key=True),
    Column("rejected_at", Moment, nullable=False),
    Column("reason", Text, nullable=False),
    Column("endpoint_id", Text, comment="set when it came to the secret path of an endpoint of ours"),
    Column("size", Integer, nullable=False, comment="bytes"),
    Column("header_names", Text, nullable=False, comment="comma separated"),
    Column("remote_address", Text),
    Column("digest", Text, nullable=False, comment="SHA-256 of the body, hex"),
    Index("ix_rejections_rejected_at", "rejected_at"),
)
