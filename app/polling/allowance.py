"""The allowance of requests to Rivya: one to take for whoever wants to send, and the place to tell what Rivya said."""

import asyncio
import hashlib
import random
from collections.abc import Callable

from app.core.clock import Clock
from app.core.database import Database
from app.core.health import Finding
from app.polling.bookings import Bookings, Pause
from app.polling.budget import Budget, Pace
from app.polling.measures import note_rate_limited, note_resumed, note_stopped
from app.polling.standing import standing
from app.rivya.errors import RivyaError, RivyaForbidden, RivyaRateLimited, RivyaRefused, RivyaUnauthorized


class Allowance:
    """Every background request to Rivya passes here first: polls by its `bookings`, others by `take`."""

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
        self.bookings = Bookings(database, clock, rate=rate, key=_fingerprint(api_key), pause=pause)
        self._database = database
        self._clock = clock
        self._chance = chance
        self._step = Pace(rate=rate).step.total_seconds()
        self._took_at: float | None = None

    async def take(self) -> bool:
        """Wait for the next free slot, 2 seconds at most; True: one request may leave, now.

        False when the slots are booked further ahead, when Rivya refuses our key or asked for a pause, and when this
        process comes back at once: send the one request before asking for another. Raises `DatabaseUnavailable`.
        """
        if self._took_at is not None and self._clock.monotonic() - self._took_at < self._step:
            return False
        async with self._database.transaction() as connection:
            opening = await self.bookings.open_for_one(connection)
            permits = await self.bookings.book(connection, opening, min(opening.room, 1))
        self.bookings.keep(permits)
        if not permits or (may_leave := await self.bookings.reach(permits[0])) is None or not may_leave():
            return False
        self._took_at = self._clock.monotonic()
        return True

    async def note(self, error: RivyaError) -> None:
        """Rivya answered with this: a 429 pauses all replicas, a 401 stops them. Raises `DatabaseUnavailable`."""
        if isinstance(error, RivyaRateLimited):
            await self._note_rate_limited(error)
        if isinstance(error, RivyaUnauthorized):
            await self._note_stopped(error)

    async def note_poll_refused(self, error: RivyaError) -> None:
        """A poll was answered with this: like `note`, and a 403 stops all polls. Raises `DatabaseUnavailable`."""
        if isinstance(error, RivyaForbidden):
            await self._note_stopped(error)
        await self.note(error)

    async def note_success(self) -> None:
        """Rivya took our key. Costs nothing unless it had been refusing. Raises `DatabaseUnavailable`."""
        seen = self.bookings.seen
        if seen is not None and (seen.blocks or seen.is_key_refused(self.bookings.key)):
            await self._note_resumed(lambda budget: budget.is_key_refused(self.bookings.key))

    async def note_poll_answered(self) -> None:
        """Rivya answered a poll: like `note_success`, and a 403 is over too. Raises `DatabaseUnavailable`."""
        seen = self.bookings.seen
        if seen is not None and (seen.blocks or seen.is_stopped(self.bookings.key)):
            await self._note_resumed(lambda budget: budget.is_stopped(self.bookings.key))

    async def health(self) -> Finding:
        """How polling stands, for `/readyz` and `check`. Raises `DatabaseUnavailable`."""
        return standing(await self.bookings.read(), self.bookings.key, now=self._clock.now(), rate=self.bookings.rate)

    async def findings(self) -> list[Finding]:
        """The same, as one of several."""
        return [await self.health()]

    async def _note_rate_limited(self, error: RivyaRateLimited) -> None:
        self.bookings.void()
        chance = self._chance()
        before, after = await self.bookings.change(
            lambda budget, now: budget.rate_limited(now, retry_after=error.retry_after, chance=chance)
        )
        if after != before:
            note_rate_limited(after.blocked_until, blocks=after.blocks)

    async def _note_stopped(self, error: RivyaRefused) -> None:
        self.bookings.void()
        before, _ = await self.bookings.change(
            lambda budget, now: budget.stopped(now, key=self.bookings.key, status=error.status, reason=error.code)
        )
        if not before.is_stopped(self.bookings.key):
            note_stopped(error.status, error.code, request_id=error.request_id)

    async def _note_resumed(self, is_over: Callable[[Budget], bool]) -> None:
        before, after = await self.bookings.change(
            lambda budget, now: (budget.resumed() if is_over(budget) else budget).answered(now)
        )
        if before.is_stopped(self.bookings.key) and not after.is_stopped(self.bookings.key):
            note_resumed()


def _fingerprint(api_key: str) -> str:
    return hashlib.sha256(api_key.encode()).hexdigest()[:12]
