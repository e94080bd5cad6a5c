"""The one row of `poll_budget`: locked before it is decided upon, so that replicas decide one after another."""

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Database
from app.polling.budget import Budget
from app.polling.tables import poll_budget

_NAME = "rivya"
_MEMBERS = [column for column in poll_budget.c if column.name != "name"]
_READ = select(*_MEMBERS).where(poll_budget.c.name == _NAME)


class BudgetRow:
    """Reads and writes the row; whoever opened the transaction commits it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert

    async def lock(self, connection: AsyncConnection, *, now: datetime) -> Budget:
        """The budget, locked until the transaction ends; a fresh one where there was none."""
        found = (await connection.execute(_READ.with_for_update())).mappings().first()
        if found is None:
            fresh = self._insert(poll_budget).values(name=_NAME, next_slot_at=now, blocks=0)
            await connection.execute(fresh.on_conflict_do_nothing())
            found = (await connection.execute(_READ.with_for_update())).mappings().one()
        return Budget(**found)

    async def save(self, connection: AsyncConnection, budget: Budget) -> None:
        """Write what was decided."""
        await connection.execute(update(poll_budget).where(poll_budget.c.name == _NAME).values(asdict(budget)))

    async def read(self) -> Budget | None:
        """The budget as it stands; None before anybody has asked for a request. Raises `DatabaseUnavailable`."""
        async with self._database.read() as connection:
            found = (await connection.execute(_READ)).mappings().first()
        return None if found is None else Budget(**found)
