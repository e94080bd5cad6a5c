"""Bookings of request slots, as one process makes them: under the lock of the shared row, void when Rivya refuses."""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.clock import Clock
from app.core.database import Database
from app.polling.budget import PUNCTUAL, REACH, Budget, Pace, widest
from app.polling.budget_row import BudgetRow
from app.polling.opening import Opening
from app.polling.own_slots import OwnSlots, Permit
from app.polling.punctuality import Tally

Pause = Callable[[float], Awaitable[None]]
"""Waits for so many seconds."""

_TAKEN_WITHIN = timedelta(seconds=2)
_LONGEST_WAIT = timedelta(minutes=5)
_BOOK_AGAIN = timedelta(seconds=0.6)
_SOONEST_LOOK = timedelta(seconds=0.05)
_LATEST_LOOK = timedelta(seconds=1)


class Bookings:
    """What this process has booked, and what it last saw of the budget that it shares."""

    def __init__(self, database: Database, clock: Clock, *, rate: float, key: str, pause: Pause) -> None:
        self.key = key
        """Fingerprint of the API key."""
        self.rate = rate
        self.seen: Budget | None = None
        self._database = database
        self._clock = clock
        self._pause = pause
        self._row = BudgetRow(database)
        self._refusals = 0
        """Counts what voids the permits given before it."""
        self._tally = Tally(rate, widest=widest(rate))
        self._own = OwnSlots(Pace(rate=rate).step)
        self._waiting = 0
        self._has_started = False
        self._pause_until: datetime | None = None
        self._pause_ends = math.inf
        """On the monotonic clock."""

    async def open(self, connection: AsyncConnection) -> Opening:
        """Lock the budget until the transaction ends, and see how many polls it has room for."""
        budget, now = await self._look(connection)
        # A restart is what an operator does who has put the key in order: it is worth a probe.
        may_probe, self._has_started = budget.may_probe(now) or not self._has_started, True
        if not budget.is_stopped(self.key):
            return self._opening(budget, now, within=REACH)
        return self._opening_for_probe(budget, now, may_probe=may_probe)

    async def open_for_one(self, connection: AsyncConnection) -> Opening:
        """Lock the budget until the transaction ends, and see whether it has room for one request of another kind."""
        budget, now = await self._look(connection)
        if not budget.is_key_refused(self.key):
            return self._opening(budget, now, within=_TAKEN_WITHIN)
        return self._opening_for_probe(budget, now, may_probe=budget.may_probe(now))

    async def book(self, connection: AsyncConnection, opening: Opening, count: int) -> list[Permit]:
        """Take slots for `count` requests, no more than there is room for; they are to be kept once committed.

        There are more permits than `count` where requests that were late for their slots are still without one.
        """
        if count == 0:
            return []
        if opening.is_probe:
            booked, probe = opening.budget.book_probe(opening.now, opening.pace)
            slots = [probe]
        else:
            late = max(self._waiting - len(self._own), 0)
            booked, slots = opening.budget.book(min(count + late, opening.room), opening.now, opening.pace)
        await self._row.save(connection, booked)
        self.seen = booked
        return [Permit(slot, opening.pace.width, self._refusals, opening.is_probe) for slot in slots]

    def keep(self, permits: Sequence[Permit]) -> None:
        """The booking of these is committed: from now on their slots are this process's."""
        for permit in permits:
            if not permit.is_probe and permit.refusals == self._refusals:
                self._own.add(Pace(rate=self.rate, width=permit.width).moments(permit.slot))

    async def reach(self, permit: Permit, *, is_full: Callable[[], bool] = lambda: False) -> Callable[[], bool] | None:
        """Wait for the permit's slot. None: the permit is void, or there is no slot left; nothing must be sent.

        Else whether the request may leave is to be asked again when its first byte does. Who is late for its slot takes
        the next one that this process has booked, and so do those behind it. Nobody takes one while `is_full`, because
        too much is under way to send more.
        """
        self._waiting += 1
        try:
            if not await self._wait_until(permit.slot.at) or permit.refusals != self._refusals:
                return None
            if permit.is_probe:
                return partial(self._may_leave, permit, until=permit.slot.until)
            used = None if is_full() else await self._use_own(permit)
        finally:
            self._waiting -= 1
        if permit.refusals != self._refusals:
            return None
        self._tally.note(permit.width, is_missed=used is None)
        return None if used is None else partial(self._may_leave, permit, until=used + PUNCTUAL)

    async def _use_own(self, permit: Permit) -> datetime | None:
        waited_at: datetime | None = None
        while permit.refusals == self._refusals and (at := self._own.first(now := self._clock.now())) is not None:
            if at <= now or now == waited_at:  # the time has passed, if not by a clock that stands still
                return self._own.use_first()
            if not await self._wait_until(at):
                return None
            waited_at = now
        return None

    def _may_leave(self, permit: Permit, *, until: datetime) -> bool:
        if permit.refusals != self._refusals:
            return False
        now = self._clock.now()
        if now <= until or permit.is_probe:
            return now <= until
        following = self._own.first(now)
        if following is None or following > now:
            return False
        self._own.use_first()
        return True

    async def _wait_until(self, moment: datetime) -> bool:
        wait = (moment - self._clock.now()).total_seconds()
        if wait > _LONGEST_WAIT.total_seconds():
            return False  # the clock was set back since
        if wait > 0:
            await self._pause(wait)
        return True

    async def change(self, decide: Callable[[Budget, datetime], Budget]) -> tuple[Budget, Budget]:
        """Change the budget under its lock; returns it as it was and as it is. Raises `DatabaseUnavailable`."""
        async with self._database.transaction() as connection:
            before = await self._row.lock(connection, now=self._clock.now())
            after = decide(before, self._clock.now())
            if after != before:
                await self._row.save(connection, after)
            self._note_pause(after)
        self.seen = after
        return before, after

    async def read(self) -> Budget | None:
        """The budget as it stands. Raises `DatabaseUnavailable`."""
        return await self._row.read()

    def void(self) -> None:
        """Rivya refuses: no permit given so far may be used."""
        self._refusals += 1
        self._own.clear()

    @property
    def seconds_to_next_look(self) -> float:
        """When it is worth while to look for room again, at the latest in a second."""
        if self.seen is None or self.seen.is_stopped(self.key):
            return _LATEST_LOOK.total_seconds()
        free_at = self.seen.next_slot_at - _BOOK_AGAIN
        if self.seen.blocked_until is not None:
            free_at = max(free_at, self.seen.blocked_until)
        return min(max(free_at - self._clock.now(), _SOONEST_LOOK), _LATEST_LOOK).total_seconds()

    async def _look(self, connection: AsyncConnection) -> tuple[Budget, datetime]:
        budget = await self._row.lock(connection, now=self._clock.now())
        now = self._clock.now()  # the lock may have taken its time
        self._note_pause(budget)
        if self._clock.monotonic() >= self._pause_ends:
            budget = budget.unblocked()
        before, self.seen = self.seen, budget
        is_new_pause = budget.is_blocked(now) and (before is None or before.blocked_until != budget.blocked_until)
        is_new_stop = budget.is_stopped(self.key) and (before is None or not before.is_stopped(self.key))
        if is_new_pause or is_new_stop:
            self.void()
        return budget, now

    def _note_pause(self, budget: Budget) -> None:
        """A pause lasts as long as it did when it was first seen, whatever is done to the clock meanwhile."""
        if budget.blocked_until is None or budget.blocked_until == self._pause_until:
            return
        self._pause_until = budget.blocked_until
        self._pause_ends = self._clock.monotonic() + (budget.blocked_until - self._clock.now()).total_seconds()

    def _opening(self, budget: Budget, now: datetime, *, within: timedelta) -> Opening:
        pace = Pace(rate=self.rate, width=self._tally.width)
        room = 0 if budget.is_blocked(now) else budget.room(now, pace, within=within)
        return Opening(budget, now, pace, room)

    def _opening_for_probe(self, budget: Budget, now: datetime, *, may_probe: bool) -> Opening:
        opening = self._opening(budget, now, within=REACH)
        return replace(opening, room=min(opening.room, 1) if may_probe else 0, is_probe=True)
