"""Moves the recorded changes of usage into the sums by the hour, a bounded number of rows at a time.

The sums are exact at any time and with any number of replicas: one statement removes a row from one table and adds it
to the other, and it skips rows that another replica has locked.
"""

from typing import Final

from sqlalchemy import Integer, bindparam, func, select, text

from app.core.database import Database
from app.core.pagination import BY_INDEX
from app.ledger.tables import usage_changes, usage_hours

MOST: Final = 4000
"""Changes in one transaction."""
MOST_OF_ONE_WRITER: Final = 1000
"""On SQLite, where one writer blocks all others."""

_REST: Final = 5.0
_PAUSE: Final = 0.2
_COLUMNS: Final = "hour, submitted_by, model, generations, open, reserved_credits, final_credits"
_SUMMED: Final = "hour, submitted_by, model, sum(generations), sum(open), sum(reserved_credits), sum(final_credits)"
_LEFT: Final = "GROUP BY hour, submitted_by, model HAVING sum(generations) <> 0"
# Two replicas may each take one half of a change, so a sum that is not 0 is kept; PostgreSQL's sums are exact.
_OR_ELSE: Final = "OR sum(open) <> 0 OR sum(reserved_credits) <> 0 OR sum(final_credits) <> 0"

# = ANY(ARRAY(...)) makes PostgreSQL use the index whatever the planner assumes about the tables' size.
_ON_POSTGRES: Final = text(f"""
WITH taken AS (
    DELETE FROM usage_changes
    WHERE id = ANY(ARRAY(SELECT id FROM usage_changes ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED))
    RETURNING {_COLUMNS}
), summed AS (
    DELETE FROM usage_hours WHERE id = ANY(ARRAY(
        SELECT id FROM usage_hours WHERE hour = ANY(ARRAY(SELECT DISTINCT hour FROM taken)) FOR UPDATE SKIP LOCKED
    ))
    RETURNING {_COLUMNS}
), added AS (
    INSERT INTO usage_hours ({_COLUMNS})
    SELECT {_SUMMED} FROM (SELECT * FROM taken UNION ALL SELECT * FROM summed) AS each {_LEFT} {_OR_ELSE}
)
SELECT count(*) FROM taken
""").bindparams(bindparam("most", type_=Integer))  # noqa: S608 - of column names of ours

# SQLite has one writer, so no other write happens between these.
_HOURS: Final = "hour IN (SELECT hour FROM usage_changes WHERE id <= :upto)"
_CHANGED: Final = f"SELECT {_COLUMNS} FROM usage_changes WHERE id <= :upto"  # noqa: S608
_BEFORE: Final = f"SELECT {_COLUMNS} FROM usage_hours WHERE id <= :last AND {_HOURS}"  # noqa: S608
_ON_SQLITE: Final = (
    text(f"INSERT INTO usage_hours ({_COLUMNS}) SELECT {_SUMMED} FROM ({_CHANGED} UNION ALL {_BEFORE}) {_LEFT}"),  # noqa: S608
    text(f"DELETE FROM usage_hours WHERE id <= :last AND {_HOURS}"),  # noqa: S608
    text("DELETE FROM usage_changes WHERE id <= :upto"),
)


class UsageRollup:
    """Moves usage changes into the hourly sums; every replica runs it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.most = MOST_OF_ONE_WRITER if database.is_sqlite else MOST
        """Changes in one transaction."""

    async def run_once(self) -> float:
        """Move one batch; returns the seconds until the next run. Raises `DatabaseUnavailable`."""
        return _PAUSE if await self.move() == self.most else _REST

    async def move(self) -> int:
        """Move the oldest changes; returns the number of changes. Raises `DatabaseUnavailable`."""
        async with self._database.read(plan=BY_INDEX) as connection:
            oldest = select(usage_changes.c.id).order_by(usage_changes.c.id).limit(self.most)
            if await connection.scalar(oldest.limit(1)) is None:
                return 0
        async with self._database.transaction() as connection:
            if not self._database.is_sqlite:
                await connection.execute(BY_INDEX)
                return int((await connection.execute(_ON_POSTGRES, {"most": self.most})).scalar_one())
            ids = oldest.subquery().c.id
            count, upto = (await connection.execute(select(func.count(), func.max(ids)))).one()
            last = await connection.scalar(select(func.coalesce(func.max(usage_hours.c.id), 0)))
            for statement in _ON_SQLITE if count else ():
                await connection.execute(statement, {"upto": upto, "last": last})
            return int(count)
