"""Asks for the outcome of generations whose callback is overdue; any number of processes may run it."""

import asyncio
from datetime import timedelta

import structlog

from app.core.clock import Clock
from app.core.database import Database
from app.core.errors import DatabaseUnavailable
from app.ledger.poll_state import PollBook, PollNote
from app.polling import notes
from app.polling.claims import Claimed, Claims
from app.polling.measures import note_recalled, note_turned
from app.polling.poll import Polling
from app.polling.timing import Timing
from app.ratelimit.budget import polls_ahead, polls_at_once
from app.ratelimit.limiter import RateLimiter

LONGEST_IDLE = timedelta(seconds=1)

_SECONDS_WHEN_FULL = 0.1
_SECONDS_BETWEEN_RECALLS = 60.0

log = structlog.stdlib.get_logger(__name__)


class Poller:
    """`turn` is one turn of a supervised loop; the polls it starts go on beside it until `stop`."""

    def __init__(
        self,
        database: Database,
        polling: Polling,
        *,
        timing: Timing,
        limiter: RateLimiter,
        clock: Clock,
        most_at_once: int | None = None,
        most_ahead: int | None = None,
        grace: float = 3.0,
    ) -> None:
        self._polling = polling
        self._timing = timing
        self._limiter = limiter
        self._claims = Claims(database, limiter, clock)
        self._book = PollBook(database)
        self._clock = clock
        # As many as the client has lanes: a poll that had to wait for one would leave after its slot.
        self._most_asking = most_at_once or polls_at_once(limiter.rate)
        self._most_ahead = polls_ahead(limiter.rate) if most_ahead is None else most_ahead
        self._grace = grace
        """Seconds that a poll may still take once asked to stop."""
        self._tasks: dict[asyncio.Task[PollNote | None], Claimed] = {}
        self._asking: set[str] = set()
        self._notes: list[PollNote] = []
        self._recalled_at: float | None = None

    async def turn(self) -> float:
        """Start what is due and the budget allows; returns the seconds until the next turn, 1 at most."""
        await self._write()
        await self._recall()
        await self._pull_forward()
        room = self._room()
        if room <= 0:
            return _SECONDS_WHEN_FULL
        due_at = await self._claims.next_due()
        now = self._clock.now()
        if due_at is None or due_at > now:
            return min(LONGEST_IDLE, due_at - now if due_at is not None else LONGEST_IDLE).total_seconds()
        for claimed in await self._claims.claim(room):
            task = asyncio.create_task(self._poll(claimed), name=f"poll-{claimed.held.id}")
            self._tasks[task] = claimed
            task.add_done_callback(self._finished)
        return self._limiter.seconds_until_room

    async def idle(self) -> None:
        """Wait until every poll under way has ended, and write what they came to. Raises `DatabaseUnavailable`."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._write()

    async def stop(self) -> None:
        """Finish the polls that have left, within the grace, and give back the others for another replica to take."""
        leaving = [task for task, claimed in self._tasks.items() if claimed.held.id in self._asking]
        for task in self._tasks.keys() - set(leaving):
            task.cancel()
        if leaving:
            await asyncio.wait(leaving, timeout=self._grace)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._write()
        except DatabaseUnavailable:
            log.warning("poll.leases_kept", count=len(self._notes))  # they run out by themselves

    def _room(self) -> int:
        """How many may be claimed: so many that slots are filled while others are still being answered.

        Once Rivya is slow, and half of the lanes are taken, only as many as will find one free.
        """
        ahead = self._most_ahead if len(self._asking) * 2 <= self._most_asking else 0
        return self._most_asking + ahead - len(self._tasks)

    async def _recall(self) -> None:
        """Now and then, and at the start: polls that a clock set back has put out of reach are brought back."""
        if self._recalled_at is not None and self._clock.monotonic() - self._recalled_at < _SECONDS_BETWEEN_RECALLS:
            return
        now = self._clock.now()
        found = await self._book.recall(self._timing.bounds(now), to=now)
        self._recalled_at = self._clock.monotonic()
        if found > 0:  # SQLite does not tell how many
            note_recalled(found)

    async def _pull_forward(self) -> None:
        moments = self._timing.to_pull_forward(self._clock.now())
        if moments is not None:
            await self._book.pull_forward(to=moments[0], later_than=moments[1])

    async def _poll(self, claimed: Claimed) -> PollNote | None:
        held = claimed.held
        try:
            may_leave = await self._limiter.wait_for_slot(claimed.reservation)
            if may_leave is None or len(self._asking) >= self._most_asking:
                return notes.given_back(held, self._clock.now())
            self._asking.add(held.id)
            return await self._polling.poll(held, may_leave)
        except DatabaseUnavailable:
            return notes.given_back(held, self._clock.now())
        except Exception as error:
            # One generation that breaks us must not hold up the others, nor be asked for again and again.
            log.exception("poll.broken", generation_id=held.id)
            following = self._timing.after_failure(held, self._clock.now(), retry_after=None)
            return notes.failed(held, following, f"broken {type(error).__name__}")

    def _finished(self, task: "asyncio.Task[PollNote | None]") -> None:
        held = self._tasks.pop(task).held
        self._asking.discard(held.id)
        note = notes.given_back(held, self._clock.now()) if task.cancelled() else task.result()
        if note is not None:
            self._notes.append(note)

    async def _write(self) -> None:
        """Write down what polls came to; what can't be written now is kept for the next time."""
        if not self._notes:
            return
        waiting, self._notes = self._notes, []
        try:
            written = await self._book.note_poll_failures(waiting)
        except DatabaseUnavailable:
            self._notes = waiting + self._notes
            raise
        for note in written:
            if note.tracking is not note.held.tracking:
                note_turned(note.held.id, note.tracking)
