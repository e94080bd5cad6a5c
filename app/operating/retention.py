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
SHARE: Final = 0.1
SHARE_OF_ONE_WRITER: Final = 0.02
"""On SQLite, where whoever writes keeps everybody else from writing."""
MOST: Final = 100
"""Generations in one transaction: what a delivery may have to wait for on SQLite, or has to share PostgreSQL with."""

_SHORTEST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 10.0
_OTHERS_AT_WORK: Final = 60.0
_REST: Final = 600.0
_OFF: Final = 3600.0

log = structlog.stdlib.get_logger(__name__)


class Retention:
    """`turn` is one turn of a supervised loop: one batch, if this replica has the lease."""

    def __init__(self, pruning: Pruning, leases: Leases, *, clock: Clock, days: int, share: float, most: int) -> None:
        self._pruning = pruning
        self._leases = leases
        self._clock = clock
        self._days = days
        self._share = share
        """Of the time, that pruning may take: what deliveries may find the database's writer busy with."""
        self._most = most
        self._held_at: float | None = None
        self._after: Position | None = None
        self._tally: Tally[str] = Tally()

    async def turn(self) -> float:
        """Prune one batch; returns the seconds until the next turn. Raises `DatabaseUnavailable`."""
        old = limits(self._clock.now(), days=self._days)
        if old is None:
            return _OFF
        if not await self._hold():
            return _OTHERS_AT_WORK
        began = self._clock.monotonic()
        if await self._prune(old):
            took = self._clock.monotonic() - began
            return min(max(took / self._share - took, _SHORTEST_PAUSE), _LONGEST_PAUSE)
        await self.stop()
        self._tell()
        return _REST

    async def stop(self) -> None:
        """Let another replica go on at once. Raises `DatabaseUnavailable`."""
        if self._held_at is not None:
            self._held_at = None
            await self._leases.release(LEASE)

    async def _hold(self) -> bool:
        """Have the lease, renewed after a third of its term: a commit less for most batches."""
        at = self._clock.monotonic()
        if self._held_at is not None and at - self._held_at < TERM.total_seconds() / 3:
            return True
        is_ours = await self._leases.acquire(LEASE, now=self._clock.now(), term=TERM)
        self._held_at = at if is_ours else None
        return is_ours

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
