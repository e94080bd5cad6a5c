"""One process at a time looks after the registration: a lease, renewed in good time and before every call."""

from datetime import timedelta
from typing import Final

from app.core.clock import Clock
from app.core.leases import Leases
from app.endpoint.metrics import LEADER

LEASE: Final = "endpoint"


class LeaseLost(Exception):
    """Another process is at work on the registration."""


class Leadership:
    """The lease "endpoint", as one process sees it. Methods raise `DatabaseUnavailable`."""

    def __init__(self, leases: Leases, *, clock: Clock, term: timedelta) -> None:
        self._leases = leases
        self._clock = clock
        self._term = term
        self._renewed_at: float | None = None

    @property
    def is_held(self) -> bool:
        """This process leads, as far as it knows."""
        return self._renewed_at is not None

    async def lead(self) -> bool:
        """Take the lease or keep it, renewed after a third of its term; False while another process has it."""
        if self._renewed_at is not None:
            age = self._clock.monotonic() - self._renewed_at
            if age < self._term.total_seconds() / 3:
                return True
        return await self._acquire()

    async def hold(self) -> None:
        """Renew the lease now. Raises `LeaseLost`."""
        if not await self._acquire():
            raise LeaseLost

    async def release(self) -> None:
        """Let another process lead at once."""
        if self.is_held:
            self._renewed_at = None
            LEADER.set(0)
            await self._leases.release(LEASE)

    async def _acquire(self) -> bool:
        asked_at = self._clock.monotonic()
        acquired = await self._leases.acquire(LEASE, now=self._clock.now(), term=self._term)
        self._renewed_at = asked_at if acquired else None
        LEADER.set(acquired)
        return acquired
