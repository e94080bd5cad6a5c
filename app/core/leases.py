"""Named leases in the database: one process at a time holds each, and a lease expires by itself."""

from datetime import datetime, timedelta

from prometheus_client import Gauge
from sqlalchemy import Column, Table, Text, delete, or_

from app.core.clock import Clock
from app.core.database import Database, Id, UtcDateTime, metadata

leases = Table(
    "leases",
    metadata,
    Column("name", Id, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("held_until", UtcDateTime, nullable=False),
)


class Leases:
    """Leases as one process acquires them; `holder` is the name of the process."""

    def __init__(self, database: Database, *, holder: str) -> None:
        self._database = database
        self._holder = holder

    async def acquire(self, name: str, *, now: datetime, term: timedelta) -> bool:
        """Take or renew the lease until `now + term`; False while another holder has it."""
        new = self._database.insert(leases).values(name=name, holder=self._holder, held_until=now + term)
        # A lease that ends later than any can was written by a clock that was set back since; its holder may be dead.
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
        """Release the lease if this process holds it."""
        statement = delete(leases).where(leases.c.name == name, leases.c.holder == self._holder)
        async with self._database.transaction() as connection:
            await connection.execute(statement)


class LeaseLost(Exception):
    """Another process holds the lease now."""


class Leadership:
    """The lease `name` as one process sees it; `gauge` is 1 while this process holds it.

    Methods raise `DatabaseUnavailable`.
    """

    def __init__(self, leases: Leases, name: str, *, clock: Clock, term: timedelta, gauge: Gauge | None = None) -> None:
        self._leases = leases
        self._name = name
        self._clock = clock
        self._term = term
        self._gauge = gauge
        self._renewed_at: float | None = None

    @property
    def is_held(self) -> bool:
        """This process holds the lease, as far as it knows."""
        return self._renewed_at is not None

    async def lead(self) -> bool:
        """Take the lease or keep it, renewed after a third of its term; False while another process has it."""
        third = self._term.total_seconds() / 3
        if self._renewed_at is not None and self._clock.monotonic() - self._renewed_at < third:
            return True
        return await self._acquire()

    async def hold(self) -> None:
        """Renew the lease now. Raises `LeaseLost`."""
        if not await self._acquire():
            raise LeaseLost

    async def release(self) -> None:
        """Let another process take the lease at once."""
        if self.is_held:
            self._set_renewed_at(None)
            await self._leases.release(self._name)

    async def _acquire(self) -> bool:
        asked_at = self._clock.monotonic()
        acquired = await self._leases.acquire(self._name, now=self._clock.now(), term=self._term)
        self._set_renewed_at(asked_at if acquired else None)
        return acquired

    def _set_renewed_at(self, at: float | None) -> None:
        self._renewed_at = at
        if self._gauge is not None:
            self._gauge.set(at is not None)
