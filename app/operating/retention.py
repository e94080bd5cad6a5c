"""Prunes what is older than RECEIVER_RETENTION_DAYS, in small batches with pauses, by one replica at a time."""

from collections import Counter as Tally
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from app.core.clock import Clock
from app.core.leases import Leases
from app.ledger.reads import Position
from app.operating.keeping import Limits, limits
from app.operating.pruning import Pruning

PRUNED = Counter("receiver_pruned", "Rows removed or emptied for their age.", ["what"])

LEASE: Final = "retention"
TERM: Final = timedelta(seconds=60)
MOST: Final = 100
"""Rows in one transaction: what a delivery may have to wait for on SQLite, which has one writer."""

_BETWEEN_BATCHES: Final = 0.1
_OTHERS_AT_WORK: Final = 60.0
_REST: Final = 600.0
_OFF: Final = 3600.0

log = structlog.stdlib.get_logger(__name__)


class Retention:
    """`turn` is one turn of a supervised loop: one batch, if this replica has the lease."""

    def __init__(self, pruning: Pruning, leases: Leases, *, clock: Clock, days: int, most: int = MOST) -> None:
        self._pruning = pruning
        self._leases = leases
        self._clock = clock
        self._days = days
        self._most = most
        self._after: Position | None = None
        self._tally: Tally[str] = Tally()

    async def turn(self) -> float:
        """Prune one batch; returns the seconds until the next turn. Raises `DatabaseUnavailable`."""
        now = self._clock.now()
        old = limits(now, days=self._days)
        if old is None:
            return _OFF
        if not await self._leases.acquire(LEASE, now=now, term=TERM):
            return _OTHERS_AT_WORK
        if await self._prune(old):
            return _BETWEEN_BATCHES
        await self._leases.release(LEASE)
        self._tell()
        return _REST

    async def _prune(self, old: Limits) -> bool:
        """Whether there may be more."""
        now, most = self._clock.now(), self._most
        found = await self._pruning.settled_generations(old.settled_before, most=most, now=now)
        self._count("generations", found)
        if found == most:
            return True
        self._after = await self._pruning.bodies_of_none(old.settled_before, after=self._after, most=most, now=now)
        if self._after is not None:
            return True
        found = await self._pruning.expired_deliveries(old.pruned_before, most=most)
        self._count("deliveries", found)
        return found == most

    def _count(self, what: str, found: int) -> None:
        if found:
            PRUNED.labels(what).inc(found)
            self._tally[what] += found

    def _tell(self) -> None:
        if self._tally:
            log.info("retention.pruned", days=self._days, **self._tally)
            self._tally.clear()
