"""The request budget that all replicas share, and what suspends it: one row."""

from sqlalchemy import Column, Integer, Table, Text

from app.core.database import Moment, metadata

poll_budget = Table(
    "poll_budget",
    metadata,
    Column("name", Text, primary_key=True),
    Column("next_slot_at", Moment, nullable=False, comment="the next request may leave then, not before"),
    Column("blocked_until", Moment, comment="Rivya asked for a pause (429)"),
    Column("blocks", Integer, nullable=False, comment="429 answers in a row"),
    Column("stopped_status", Integer, comment="401: no call will do; 403: no poll will"),
    Column("stopped_reason", Text, comment="an error code of Rivya's that says the key won't do"),
    Column("stopped_key", Text, comment="fingerprint of that key: another one is not stopped"),
    Column("stopped_until", Moment, comment="one probe is allowed then"),
)
