"""Asks for the outcome of generations whose callback is overdue; any number of processes may run it."""

import asyncio
from datetime import datetime, timedelta

import structlog

from app.core.clock import Clock
from app.core.database import Database
from app.core.errors import DatabaseUnavailable, ServiceError
from app.ledger.models import Claim, Polled, Report, Source, Tracking
from app.ledger.poll_state import PollLease, PollResult, PollStateRepository
from app.ledger.write_queue import WriteQueue
from app.polling.claims import Claimed, Claims
from app.polling.metrics import POLLS, note_failed, note_recalled, note_turned
from app.polling.schedule import NextPoll, Timing
from app.ratelimit.budget import polls_ahead, polls_at_once
from app.ratelimit.limiter import RateLimiter
from app.rivya.client import RivyaClient
from app.rivya.errors import (
    RequestWithheld,
    RivyaError,
    RivyaForbidden,
    RivyaNotFound,
    RivyaRateLimited,
    RivyaRefused,
    RivyaUnauthorized,
    RivyaUnreadable,
)
from app.rivya.transport import BeforeSend

log = structlog.stdlib.get_logger(__name__)


# One poll: ask Rivya about a generation, report what it says, or say what is to be written instead.


ACCOUNT_ERRORS = (RivyaRateLimited, RivyaUnauthorized, RivyaForbidden)
"""Says something about us and nothing about the generation."""


class PollExecutor:
    """Asks and reports; no transaction is open while Rivya is asked."""

    def __init__(
        self, client: RivyaClient, batch: WriteQueue, *, timing: Timing, limiter: RateLimiter, clock: Clock
    ) -> None:
        self._client = client
        self._batch = batch
        self._timing = timing
        self._limiter = limiter
        self._clock = clock
        self._errors = 0

    def errors_in_a_row(self) -> int:
        """Polls of this process since Rivya last answered one; that it knows no such generation is an answer."""
        return self._errors

    async def poll(self, held: PollLease, before_send: BeforeSend) -> PollResult | None:
        """Ask and report; None when the ledger has it, else what to write. Raises `DatabaseUnavailable`."""
        try:
            said = await self._client.get_generation(held.id, before_send=before_send)
            if said.id != held.id:
                raise RivyaUnreadable("the answer is about another generation", status=200)
        except RequestWithheld:
            return given_back(held, self._clock.now())
        except RivyaError as error:
            POLLS.labels(result_of(error)).inc()
            self._errors = 0 if isinstance(error, RivyaNotFound) else self._errors + 1
            return await self._after_error(held, error)
        POLLS.labels(said.status).inc()
        self._errors = 0
        await self._limiter.record_poll_success()
        return await self._report(held, said)

    async def _report(self, held: PollLease, said: Claim) -> PollResult | None:
        now = self._clock.now()
        following = self._timing.after_answer(held, now)
        polled = Polled(next_poll_at=following.poll_at or now, tracking=following.tracking)
        report = Report(source=Source.POLL, reported_at=now, claim=said, polled=polled)
        try:
            recorded = await self._batch.put(report)
        except ServiceError as error:
            return self._failed(held, f"not_recorded {error.code}")
        is_stalled = recorded.generation is not None and recorded.generation.tracking is Tracking.STALLED
        if is_stalled and held.tracking is not Tracking.STALLED:
            note_turned(held.id, Tracking.STALLED)
        return None

    async def _after_error(self, held: PollLease, error: RivyaError) -> PollResult:
        if isinstance(error, ACCOUNT_ERRORS):
            await self._limiter.record_poll_error(error)
            return given_back(held, self._clock.now())
        if isinstance(error, RivyaNotFound):
            await self._limiter.record_poll_success()
            return self._not_found(held, error)
        request_id = getattr(error, "request_id", None)
        retry_after = getattr(error, "retry_after", None)
        return self._failed(held, error_of(error), request_id=request_id, retry_after=retry_after)

    def _not_found(self, held: PollLease, error: RivyaNotFound) -> PollResult:
        now = self._clock.now()
        described, count = error_of(error), held.not_found_count + 1
        note_failed(held.id, error=described, request_id=error.request_id, in_a_row=count)
        return not_found(held, self._timing.after_not_found(held, now), described, now=now)

    def _failed(
        self, held: PollLease, described: str, *, request_id: str | None = None, retry_after: float | None = None
    ) -> PollResult:
        note_failed(held.id, error=described, request_id=request_id, in_a_row=held.poll_failures + 1)
        following = self._timing.after_failure(held, self._clock.now(), retry_after=retry_after)
        return failed(held, following, described)


LONGEST_IDLE = timedelta(seconds=1)

_SECONDS_WHEN_FULL = 0.1
_SECONDS_BETWEEN_RECALLS = 60.0


class Poller:
    """`run_once` is one turn of a supervised loop; the polls it starts go on beside it until `stop`."""

    def __init__(
        self,
        database: Database,
        polling: PollExecutor,
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
        self._book = PollStateRepository(database)
        self._clock = clock
        # As many as the client has lanes: a poll that had to wait for one would leave after its slot.
        self._most_asking = most_at_once or polls_at_once(limiter.rate)
        self._most_ahead = polls_ahead(limiter.rate) if most_ahead is None else most_ahead
        self._grace = grace
        """Seconds that a poll may still take once asked to stop."""
        self._tasks: dict[asyncio.Task[PollResult | None], Claimed] = {}
        self._asking: set[str] = set()
        self._notes: list[PollResult] = []
        self._recalled_at: float | None = None

    async def run_once(self) -> float:
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
        return self._limiter.seconds_until_capacity

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

    async def _poll(self, claimed: Claimed) -> PollResult | None:
        held = claimed.held
        try:
            before_send = await self._limiter.wait_for_slot(claimed.reservation)
            if before_send is None or len(self._asking) >= self._most_asking:
                return given_back(held, self._clock.now())
            self._asking.add(held.id)
            return await self._polling.poll(held, before_send)
        except DatabaseUnavailable:
            return given_back(held, self._clock.now())
        except Exception as error:
            # One generation that breaks us must not hold up the others, nor be asked for again and again.
            log.exception("poll.broken", generation_id=held.id)
            following = self._timing.after_failure(held, self._clock.now(), retry_after=None)
            return failed(held, following, f"broken {type(error).__name__}")

    def _finished(self, task: "asyncio.Task[PollResult | None]") -> None:
        held = self._tasks.pop(task).held
        self._asking.discard(held.id)
        note = given_back(held, self._clock.now()) if task.cancelled() else task.result()
        if note is not None:
            self._notes.append(note)

    async def _write(self) -> None:
        """Write down what polls came to; what can't be written now is kept for the next time."""
        if not self._notes:
            return
        waiting, self._notes = self._notes, []
        try:
            written = await self._book.record_poll_failures(waiting)
        except DatabaseUnavailable:
            self._notes = waiting + self._notes
            raise
        for note in written:
            if note.tracking is not note.held.tracking:
                note_turned(note.held.id, note.tracking)


# What is written of a poll that had nothing to report; pure.


_RESULTS: tuple[tuple[type[RivyaError], str], ...] = (
    (RivyaRateLimited, "rate_limited"),
    (RivyaUnauthorized, "unauthorized"),
    (RivyaForbidden, "unauthorized"),
    (RivyaNotFound, "not_found"),
    (RivyaRefused, "refused"),
    (RivyaUnreadable, "unreadable"),
)


def result_of(error: RivyaError) -> str:
    """One word for how a poll failed, as it is counted."""
    return next((word for kind, word in _RESULTS if isinstance(error, kind)), "unavailable")


def error_of(error: RivyaError) -> str:
    """That word, and Rivya's status and code where it gave them; never a message or a body."""
    known = (getattr(error, "status", None), getattr(error, "code", None))
    return " ".join([result_of(error), *(str(part) for part in known if part is not None)])


def given_back(held: PollLease, now: datetime) -> PollResult:
    """It was not polled: due at once, for whoever can."""
    return PollResult(
        held=held,
        next_poll_at=now,
        tracking=held.tracking,
        polls=held.polls,
        poll_failures=held.poll_failures,
        last_poll_error=held.last_poll_error,
        not_found_count=held.not_found_count,
        not_found_since=held.not_found_since,
    )


def failed(held: PollLease, following: NextPoll, error: str) -> PollResult:
    """It was polled and nothing was learnt."""
    return PollResult(
        held=held,
        next_poll_at=following.poll_at,
        tracking=following.tracking,
        polls=held.polls + 1,
        poll_failures=held.poll_failures + 1,
        last_poll_error=error,
        not_found_count=held.not_found_count,
        not_found_since=held.not_found_since,
    )


def not_found(held: PollLease, following: NextPoll, error: str, *, now: datetime) -> PollResult:
    """Rivya said that there is no such generation, which is an answer."""
    return PollResult(
        held=held,
        next_poll_at=following.poll_at,
        tracking=following.tracking,
        polls=held.polls + 1,
        poll_failures=0,
        last_poll_error=error,
        not_found_count=held.not_found_count + 1,
        not_found_since=held.not_found_since or now,
    )
