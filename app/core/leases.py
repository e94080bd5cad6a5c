"""One holder at a time, across replicas: named leases in the database that run out by themselves."""

from datetime import datetime, timedelta

from sqlalchemy import Column, Table, Text, delete, or_
from sqlalchemy.dialects import postgresql, sqlite

from app.core.database import Database, UtcDateTime, metadata

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("held_until", UtcDateTime, nullable=False),
)


class Leases:
    """Leases held under one holder's name; a holder is one process."""

    def __init__(self, database: Database, *, holder: str) -> None:
        self._database = database
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert
        self._holder = holder

    async def acquire(self, name: str, *, now: datetime, term: timedelta) -> bool:
        """Take or renew the lease until `now + term`; False while another holder has it."""
        new = self._insert(leases).values(name=name, holder=self._holder, held_until=now + term)
        # One that ends later than any can was written by a clock that has been set back since; its holder may be dead.
        impossible = leases.c.held_until > now + 2 * term
        free_or_ours = or_(leases.c.holder == self._holder, leases.c.held_until <= now, impossible)
        statement = new.on_conflict_do_update(
            index_elements=[leases.c.name],
            set_={"holder": new.excluded.holder, "held_until": new.excluded.held_until},
            where=free_or_ours,
        ).returning(leases.c.holder)
        async with self._database.transaction() as connection:
            holder = (await connection.execute(statement)).scalar_one_or_none()
        return bool(holder == self._holder)

    async def release(self, name: str) -> None:
        """Give the lease back, if it is ours."""
        mine = delete(leases).where(leases.c.name == name, leases.c.holder == self._holder)
        async with self._database.transaction() as connection:
            await connection.execute(mine)
