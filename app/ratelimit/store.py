"""The one row of `poll_budget`, locked before a decision, so that replicas decide one after another."""

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Column, Integer, Table, Text, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Database, Id, UtcDateTime, metadata
from app.ratelimit.budget import Budget

poll_budget = Table(
    "poll_budget",
    metadata,
    Column("name", Id, primary_key=True),
    Column("next_slot_at", UtcDateTime, nullable=False, comment="the next request may leave then, not before"),
    Column("blocked_until", UtcDateTime, comment="Rivya asked for a pause (429)"),
    Column("blocks", Integer, nullable=False, comment="429 answers in a row"),
    Column("stopped_status", Integer, comment="401: no call will do; 403: no poll will"),
    Column("stopped_reason", Text, comment="an error code of Rivya's that says the key won't do"),
    Column("stopped_key", Text, comment="fingerprint of that key: another one is not stopped"),
    Column("stopped_until", UtcDateTime, comment="one probe is allowed then"),
)

_NAME = "rivya"
_MEMBERS = [column for column in poll_budget.c if column.name != "name"]
_READ = select(*_MEMBERS).where(poll_budget.c.name == _NAME)


class BudgetRow:
    """Reads and writes the row; the transaction is the caller's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lock(self, connection: AsyncConnection, *, now: datetime) -> Budget:
        """The budget, locked until the transaction ends; a new one where there was none."""
        row = (await connection.execute(_READ.with_for_update())).mappings().first()
        if row is None:
            fresh = self._database.insert(poll_budget).values(name=_NAME, next_slot_at=now, blocks=0)
            await connection.execute(fresh.on_conflict_do_nothing())
            row = (await connection.execute(_READ.with_for_update())).mappings().one()
        return Budget(**row)

    async def save(self, connection: AsyncConnection, budget: Budget) -> None:
        """Write the budget."""
        await connection.execute(update(poll_budget).where(poll_budget.c.name == _NAME).values(asdict(budget)))

    async def read(self) -> Budget | None:
        """The stored budget, None before the first reservation. Raises `DatabaseUnavailable`."""
        async with self._database.read() as connection:
            row = (await connection.execute(_READ)).mappings().first()
        return None if row is None else Budget(**row)
