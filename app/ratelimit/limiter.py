"""The rate limiter of background requests to Rivya: one budget row that all replicas share (GCRA).

A request gets the next free slot; slots are `slot_spacing(rate)` apart over all replicas. A slot missed by more
than `MAX_LATENESS` is dropped, so a process that stalled releases no burst. 429, 401 and 403 suspend all replicas.
"""

import asyncio
import hashlib
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Column, Integer, Table, Text, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.clock import Clock
from app.core.database import Database, Id, UtcDateTime, metadata
from app.core.errors import HealthCheck
from app.ratelimit.budget import HORIZON, MAX_LATENESS, Budget, describe_status, slot_spacing
from app.rivya.errors import RivyaError, RivyaForbidden, RivyaRateLimited, RivyaRefused, RivyaUnauthorized

log = structlog.stdlib.get_logger(__name__)

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
_IS_OURS = poll_budget.c.name == _NAME
_READ = select(*(column for column in poll_budget.c if column.name != "name")).where(_IS_OURS)

Pause = Callable[[float], Awaitable[None]]
"""Waits for the given number of seconds."""

_ACQUIRE_WITHIN = timedelta(seconds=2)
_LONGEST_WAIT = timedelta(minutes=5)
_RESERVE_AGAIN = timedelta(seconds=0.6)
"""How long before the last reserved slot to reserve again, so that no slot stays unused."""
_SHORTEST_PAUSE = timedelta(seconds=0.05)
_LONGEST_PAUSE = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class BudgetSnapshot:
    """The budget while its row is locked; `capacity` is the number of slots that can be reserved."""

    budget: Budget
    now: datetime
    capacity: int
    is_probe: bool


@dataclass(frozen=True, slots=True)
class Reservation:
    """Permission for one request, from `at` until `until`; void as soon as Rivya refuses anything."""

    at: datetime
    until: datetime
    refusals: int


class RateLimiter:
    """Permits every background request to Rivya: polls by `reserve` and `acquire_for_poll`, others by `acquire`.

    `rate` is in requests per second, for all replicas together.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        rate: float,
        api_key: str,
        pause: Pause = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.rate = rate
        self._database = database
        self._clock = clock
        self._pause = pause
        self._chance = chance
        self._key = hashlib.sha256(api_key.encode()).hexdigest()[:12]
        """Fingerprint of the API key."""
        self._spacing = slot_spacing(rate)
        self._last: Budget | None = None
        """The budget as this process last read or wrote it."""
        self._refusals = 0
        """Grows with each refusal; reservations with a lower number are void."""
        self._has_started = False
        self._block_until: datetime | None = None
        self._acquired_at = -math.inf
        """On the monotonic clock."""
        self._block_ends = math.inf
        """On the monotonic clock."""

    async def acquire(self) -> bool:
        """Wait at most 2 seconds for the next free slot, or 4 if the first was missed; True: send one request now.

        False when the slots are reserved further ahead, when Rivya refuses our key or asked for a pause, and when this
        process calls again at once: send one request before acquiring another.

        Raises `DatabaseUnavailable`.
        """
        if self._clock.monotonic() - self._acquired_at < self._spacing.total_seconds():
            return False
        is_acquired = await self._acquire(self._snapshot)
        if is_acquired:
            self._acquired_at = self._clock.monotonic()
        return is_acquired

    async def _snapshot(self, connection: AsyncConnection) -> BudgetSnapshot:
        budget, now = await self._lock(connection)
        is_probe = budget.is_key_refused(self._key)
        capacity = budget.capacity(now, self._spacing, within=_ACQUIRE_WITHIN)
        if is_probe and not budget.may_probe(now):
            capacity = 0
        return BudgetSnapshot(budget, now, capacity, is_probe)

    async def lock(self, connection: AsyncConnection) -> BudgetSnapshot:
        """The budget, locked until the transaction ends, with the number of polls that it has room for."""
        budget, now = await self._lock(connection)
        # The operator may have restarted because the key works again: try a probe.
        may_probe, self._has_started = budget.may_probe(now) or not self._has_started, True
        is_probe, capacity = budget.is_stopped(self._key), budget.capacity(now, self._spacing)
        if is_probe:
            capacity = min(capacity, 1) if may_probe else 0
        return BudgetSnapshot(budget, now, capacity, is_probe)

    async def acquire_for_poll(self) -> bool:
        """Like `acquire`, for a slot that is free for a poll; True: send it now, False: there is none.

        Raises `DatabaseUnavailable`.
        """
        return await self._acquire(self._poll_snapshot)

    async def _poll_snapshot(self, connection: AsyncConnection) -> BudgetSnapshot:
        snapshot = await self.lock(connection)
        if snapshot.is_probe:
            return snapshot
        capacity = snapshot.budget.capacity(snapshot.now, self._spacing, within=_ACQUIRE_WITHIN)
        return replace(snapshot, capacity=capacity)

    async def _acquire(self, look: Callable[[AsyncConnection], Awaitable[BudgetSnapshot]]) -> bool:
        """Wait for one slot. Where it has passed before it was committed, as on a busy machine, wait for another."""
        ends = self._clock.monotonic() + _ACQUIRE_WITHIN.total_seconds()
        while True:
            async with self._database.transaction() as connection:
                snapshot = await look(connection)
                reservations = await self.reserve(connection, snapshot, min(snapshot.capacity, 1))
            if not reservations:
                return False
            if await self.wait_for_slot(reservations[0]):
                return True
            if reservations[0].refusals != self._refusals or self._clock.monotonic() >= ends:
                return False

    async def reserve(self, connection: AsyncConnection, snapshot: BudgetSnapshot, count: int) -> list[Reservation]:
        """Reserve `count` slots that are free; they are valid once the transaction commits."""
        if count == 0:
            return []
        if snapshot.is_probe:
            budget, at = snapshot.budget.reserve_probe(snapshot.now, self._spacing)
            slots, lateness = [at], HORIZON  # no other request is sent meanwhile
        else:
            budget, slots = snapshot.budget.reserve(count, snapshot.now, self._spacing)
            # At a low rate as late as leaves a second to the next: a connection may take that long to open.
            lateness = max(MAX_LATENESS, self._spacing - HORIZON)
        await self._save(connection, budget)
        self._last = budget
        return [Reservation(at, at + lateness, self._refusals) for at in slots]

    async def wait_for_slot(self, reservation: Reservation, *, ahead: timedelta = timedelta(0)) -> bool:
        """Wait until the slot begins, or until `ahead` of that. False: it was missed or is void, so send nothing."""
        waited_at, until = None, reservation.at - ahead
        while (now := self._clock.now()) < until and now != waited_at:  # unless the clock stands still
            if until - now > _LONGEST_WAIT or (waited_at is not None and now < waited_at):
                return False  # the clock was set back
            await self._pause((until - now).total_seconds())
            waited_at = now
        return reservation.refusals == self._refusals and self._clock.now() <= reservation.until

    def cancel_all(self) -> None:
        """Void every reservation made so far."""
        self._refusals += 1

    @property
    def seconds_until_capacity(self) -> float:
        """Seconds until slots may be free again; 1 at most."""
        if self._last is None or self._last.is_stopped(self._key):
            return _LONGEST_PAUSE.total_seconds()
        free_at = self._last.next_slot_at - _RESERVE_AGAIN
        if self._last.blocked_until is not None:
            free_at = max(free_at, self._last.blocked_until)
        return min(max(free_at - self._clock.now(), _SHORTEST_PAUSE), _LONGEST_PAUSE).total_seconds()

    async def record_error(self, error: RivyaError) -> None:
        """Record an error of a request: a 429 pauses all replicas, a 401 stops them. Raises `DatabaseUnavailable`."""
        if isinstance(error, RivyaUnauthorized):
            await self._record_stopped(error)
        if not isinstance(error, RivyaRateLimited):
            return
        self.cancel_all()
        asked, chance = error.retry_after, self._chance()
        before, after = await self._change(
            lambda budget, now: budget.rate_limited(now, retry_after=asked, chance=chance)
        )
        if after != before:
            until = after.blocked_until.isoformat() if after.blocked_until is not None else None
            log.warning("poll.rate_limited", until=until, blocks=after.blocks)

    async def record_poll_error(self, error: RivyaError) -> None:
        """Record an error of a poll, like `record_error`; a 403 also stops all polls. Raises `DatabaseUnavailable`."""
        if isinstance(error, RivyaForbidden):
            await self._record_stopped(error)
        await self.record_error(error)

    async def record_success(self) -> None:
        """Record that Rivya accepted our key; writes only after a refusal. Raises `DatabaseUnavailable`."""
        await self._record_resumed(lambda budget: budget.is_key_refused(self._key))

    async def record_poll_success(self) -> None:
        """Record a successful poll, like `record_success`; it also ends a 403. Raises `DatabaseUnavailable`."""
        await self._record_resumed(lambda budget: budget.is_stopped(self._key))

    async def read(self) -> Budget | None:
        """The stored budget, None before the first reservation. Raises `DatabaseUnavailable`."""
        async with self._database.read() as connection:
            row = (await connection.execute(_READ)).mappings().first()
        return None if row is None else Budget(**row)

    async def health(self) -> HealthCheck:
        """The state of polling for `/readyz` and `check`. Raises `DatabaseUnavailable`."""
        return describe_status(await self.read(), self._key, now=self._clock.now(), rate=self.rate)

    async def health_checks(self) -> list[HealthCheck]:
        """`health` as a list."""
        return [await self.health()]

    async def _lock(self, connection: AsyncConnection) -> tuple[Budget, datetime]:
        budget = await self._lock_row(connection)
        now = self._clock.now()  # read again: waiting for the lock may have taken long
        self._record_block(budget)
        if self._clock.monotonic() >= self._block_ends:
            budget = budget.unblocked()
        before, self._last = self._last, budget
        is_new_block = budget.is_blocked(now) and (before is None or before.blocked_until != budget.blocked_until)
        is_new_stop = budget.is_stopped(self._key) and (before is None or not before.is_stopped(self._key))
        if is_new_block or is_new_stop:
            self.cancel_all()
        return budget, now

    async def _lock_row(self, connection: AsyncConnection) -> Budget:
        """The budget, locked until the transaction ends, so that replicas decide one after another."""
        row = (await connection.execute(_READ.with_for_update())).mappings().first()
        if row is None:
            fresh = self._database.insert(poll_budget).values(name=_NAME, next_slot_at=self._clock.now(), blocks=0)
            await connection.execute(fresh.on_conflict_do_nothing())
            row = (await connection.execute(_READ.with_for_update())).mappings().one()
        return Budget(**row)

    async def _save(self, connection: AsyncConnection, budget: Budget) -> None:
        await connection.execute(update(poll_budget).where(_IS_OURS).values(asdict(budget)))

    def _record_block(self, budget: Budget) -> None:
        """Fix the end of a new pause on the monotonic clock, so that steps of the clock do not change it."""
        if budget.blocked_until is None or budget.blocked_until == self._block_until:
            return
        self._block_until = budget.blocked_until
        self._block_ends = self._clock.monotonic() + (budget.blocked_until - self._clock.now()).total_seconds()

    async def _change(self, decide: Callable[[Budget, datetime], Budget]) -> tuple[Budget, Budget]:
        """Change the budget under its lock; returns it before and after. Raises `DatabaseUnavailable`."""
        async with self._database.transaction() as connection:
            before = await self._lock_row(connection)
            after = decide(before, self._clock.now())
            if after != before:
                await self._save(connection, after)
            self._record_block(after)
        self._last = after
        return before, after

    async def _record_stopped(self, error: RivyaRefused) -> None:
        self.cancel_all()
        before, _ = await self._change(
            lambda budget, now: budget.stopped(now, key=self._key, status=error.status, reason=error.code)
        )
        if not before.is_stopped(self._key):
            log.error("poll.stopped", status=error.status, reason=error.code, rivya_request_id=error.request_id)

    async def _record_resumed(self, is_over: Callable[[Budget], bool]) -> None:
        if self._last is None or not (self._last.blocks or is_over(self._last)):
            return
        before, after = await self._change(
            lambda budget, now: (budget.resumed() if is_over(budget) else budget).answered(now)
        )
        if before.is_stopped(self._key) and not after.is_stopped(self._key):
            log.info("poll.resumed")
