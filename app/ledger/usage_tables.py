"""What usage is summed from: sums by the hour, and what has changed since they were made.

Triggers on `generations` (migration 0006) write a row to `usage_changes` for what each statement changes, in the same
transaction: whoever writes, and however late, both tables together say what the generations say. `app.operating.sums`
moves the changes into the sums.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, Numeric, Table, Text

from app.core.database import Moment, metadata

# SQLite numbers rows by itself only for a column whose type is exactly INTEGER.
_Sequence = BigInteger().with_variant(Integer, "sqlite")
# Not floats: sums that are added to and taken from for years would drift, and one too large would be an error.
_Credits = Numeric(asdecimal=False)


def _sums(*, generations_comment: str) -> list[Column[object]]:
    return [
        Column("id", _Sequence, primary_key=True, autoincrement=True),
        Column("hour", Moment, nullable=False, comment="of first_seen_at, in UTC"),
        Column("submitted_by", Text),
        Column("model", Text),
        Column("generations", Integer, nullable=False, comment=generations_comment),
        Column("open", Integer, nullable=False, comment="those without an outcome"),
        Column("reserved_credits", _Credits, nullable=False),
        Column("final_credits", _Credits, nullable=False),
    ]


usage_hours = Table(
    "usage_hours",
    metadata,
    *_sums(generations_comment="several rows may be about the same; they add up"),
    Index("ix_usage_hours_hour", "hour"),
)
usage_changes = Table("usage_changes", metadata, *_sums(generations_comment="more of them; less than 0: fewer"))
