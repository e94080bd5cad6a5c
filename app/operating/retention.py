"""Prunes what is older than RECEIVER_RETENTION_DAYS, in small batches with pauses, by one replica at a time."""

from collections import Counter as Tally
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from app.core.clock import Clock
from app.core.errors import DatabaseUnavailable
from app.core.leases import Leases
from app.ledger.models import Position
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
_BETWEEN_WALKS: Final = timedelta(days=1)
_OFF: Final = 3600.0
_QUERY_CANCELED: Final = "57014"

Kind = Callable[[Limits, int], Awaitable[bool]]
"""Prunes so many rows of a kind at most; whether there may be more."""

log = structlog.stdlib.get_logger(__name__)


class Retention:
    """`turn` is one turn of a supervised loop: one batch of each kind, if this replica has the lease."""

    def __init__(self, pruning: Pruning, leases: Leases, *, clock: Clock, days: int, share: float, most: int) -> None:
        self._pruning = pruning
        self._leases = leases
        self._clock = clock
        self._days = days
        self._share = share
        """Of the time, that pruning may take: what deliveries may find the database's writer busy with."""
        self._most = most
        self._held_at: float | None = None
        self._batches: dict[str, int] = {}
        """Rows in one transaction, for kinds that have just taken too long or recover from it."""
        self._after: Position | None = None
        """Bodies up to here are seen to. A new process looks once, page by page, at what is there already."""
        self._submitted: str | None = None
        self._walk_began: datetime | None = None
        """Creates are walked over anew each day: one that was passed while it was open is answered later."""
        self._tally: Tally[str] = Tally()

    async def turn(self) -> float:
        """Prune one batch of each kind; returns the seconds until the next turn. Raises `DatabaseUnavailable`."""
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
        """Try each kind once; whether there may be more."""
        kinds = {
            "generations": self._generations,
            "bodies": self._bodies,
            "deliveries": self._deliveries,
            "submissions": self._submissions,
        }
        return any([await self._attempt(kind, prune, old) for kind, prune in kinds.items()])

    async def _attempt(self, kind: str, prune: Kind, old: Limits) -> bool:
        """One batch; a smaller one next time where the database ended it for taking too long."""
        most = self._batches.get(kind, self._most)
        try:
            is_more = await prune(old, most)
        except DatabaseUnavailable as error:
            if not is_statement_timeout(error):
                raise
            self._batches[kind] = max(most // 4, 1)
            log.warning("retention.timed_out", what=kind, reason=error.reason, batch=most, next=self._batches[kind])
            await self._hold()  # the other kinds are next, and the lease may be about to run out
            return most > 1
        self._batches[kind] = min(most * 2, self._most)
        return is_more

    async def _generations(self, old: Limits, most: int) -> bool:
        now = self._clock.now()
        found = await self._pruning.settled_generations(old.settled_before, most=most, now=now)
        self._count("generations", found)
        return found == most

    async def _bodies(self, old: Limits, most: int) -> bool:
        now = self._clock.now()
        self._after, is_more = await self._pruning.bodies_of_none(
            old.settled_before, after=self._after, most=most, now=now
        )
        return is_more

    async def _deliveries(self, old: Limits, most: int) -> bool:
        found = await self._pruning.expired_deliveries(old.pruned_before, most=most)
        self._count("deliveries", found)
        return found == most

    async def _submissions(self, old: Limits, most: int) -> bool:
        now = self._clock.now()
        if self._walk_began is None or now - self._walk_began >= _BETWEEN_WALKS:
            self._walk_began, self._submitted = now, None
        self._submitted, is_more = await self._pruning.answered_submissions(
            old.settled_before, after=self._submitted, most=most
        )
        return is_more

    def _count(self, what: str, found: int) -> None:
        if found:
            PRUNED.labels(what).inc(found)
            self._tally[what] += found

    def _tell(self) -> None:
        if self._tally:
            log.info("retention.pruned", days=self._days, **self._tally)
            self._tally.clear()


def is_statement_timeout(error: DatabaseUnavailable) -> bool:
    """Whether the database was there, and ended a statement for the time that it took."""
    cause = error.__cause__
    return getattr(getattr(cause, "orig", cause), "sqlstate", None) == _QUERY_CANCELED
