"""Polls generations whose callback is overdue; any number of processes may run it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from prometheus_client import Counter

from app.core.clock import Clock
from app.core.database import Database
from app.core.errors import DatabaseUnavailable, ServiceError
from app.core.models import Claim
from app.ledger.models import NextPoll, Report, Source, Tracking
from app.ledger.write_queue import WriteQueue
from app.polling.claims import Claimed, Claims, PollLease, PollResult
from app.polling.schedule import Schedule
from app.ratelimit.budget import ClaimWindow, polls_ahead, polls_at_once
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

POLLS = Counter("receiver_polls", "Polls, by what Rivya answered.", ["result"])
LOST = Counter("receiver_generations_lost", "Generations that Rivya no longer knows.")
STALLED = Counter("receiver_generations_stalled", "Generations still open past the horizon.")

log = structlog.stdlib.get_logger(__name__)

ACCOUNT_ERRORS = (RivyaRateLimited, RivyaUnauthorized, RivyaForbidden)
"""Errors about our account, which mean nothing for the generation."""

_CONNECT_AHEAD = timedelta(seconds=0.2)
"""How long before its slot a poll opens its connection: a slot is too short to wait for a TLS handshake."""
_LONGEST_IDLE = 1.0
_SECONDS_WHEN_FULL = 0.02
_MOST_IN_A_CLAIM = 128
"""As many as can be sent while a slot lasts, where slots follow each other more quickly than polls can be sent."""
_SECONDS_BETWEEN_RESETS = 60.0


class Poller:
    """`run_once` is one run of a supervised loop; it starts polls as tasks, which continue until `stop`.

    No transaction is open while a poll waits for Rivya.
    """

    def __init__(
        self,
        database: Database,
        client: RivyaClient,
        batch: WriteQueue,
        *,
        schedule: Schedule,
        limiter: RateLimiter,
        clock: Clock,
        most: tuple[int, int] | None = None,
        grace: float = 3.0,
    ) -> None:
        self._client = client
        self._batch = batch
        self._schedule = schedule
        self._limiter = limiter
        self._claims = Claims(database, limiter)
        self._clock = clock
        # As many as the client has connections: a poll that had to wait for one would be sent after its slot.
        self._most_asking, most_ahead = most or (polls_at_once(limiter.rate), polls_ahead(limiter.rate))
        self._window = ClaimWindow(self._most_asking + most_ahead, rate=limiter.rate)
        self._grace = grace
        """Seconds that a sent poll may still take after `stop` was called."""
        self._tasks: dict[asyncio.Task[PollResult | None], Claimed] = {}
        self._connected: set[str] = set()
        """Generations whose polls have a connection, or open one; some of them still wait for their slots."""
        self._connecting: set[str] = set()
        self._asking: set[str] = set()
        self._late = asyncio.Lock()
        """Held while a poll that missed its slot on an open connection waits for another slot."""
        self._results: list[PollResult] = []
        self._errors = 0
        self.on_failed: Callable[[datetime], None] | None = None
        """Called after each poll that Rivya did not answer with a generation."""
        self._reset_at: float | None = None

    async def run_once(self) -> float:
        """Start the polls that are due and within the budget; returns the seconds until the next run, at most 1."""
        await self._write()
        await self._reset_impossible()
        if (room := self._room()) <= 0:
            return _SECONDS_WHEN_FULL
        if (times := self._schedule.advance_times(self._clock.now())) is not None:
            await self._claims.advance(to=times[0], later_than=times[1])
        now = self._clock.now()
        due_at = await self._claims.next_due(now)
        if due_at is None or due_at > now:
            return _LONGEST_IDLE if due_at is None else min(_LONGEST_IDLE, (due_at - now).total_seconds())
        for claimed in await self._claims.claim(room):
            task = asyncio.create_task(self._poll(claimed), name=f"poll-{claimed.lease.generation_id}")
            self._tasks[task] = claimed
            task.add_done_callback(self._finished)
        return self._limiter.seconds_until_capacity

    async def idle(self) -> None:
        """Wait until every started poll has ended, and write their results. Raises `DatabaseUnavailable`."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._write()

    async def stop(self) -> None:
        """Finish the polls that were sent, within the grace period, and give the other leases back."""
        leaving = [task for task, claimed in self._tasks.items() if claimed.lease.generation_id in self._asking]
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
            log.warning("poll.leases_kept", count=len(self._results))  # they expire by themselves

    @property
    def asking(self) -> int:
        """How many polls wait for Rivya's answer."""
        return len(self._asking)

    @property
    def connecting(self) -> int:
        """How many polls open the connection on which they then wait for their slot."""
        return len(self._connecting)

    @property
    def under_way(self) -> int:
        """How many polls are claimed and not over: those that ask, and those that wait for their slots."""
        return len(self._tasks)

    def errors_in_a_row(self) -> int:
        """Failed polls of this process since the last one that Rivya answered; a 404 counts as an answer."""
        return self._errors

    def _room(self) -> int:
        """How many more may be claimed: some ahead, so that every slot is used while other polls wait for a response.

        When Rivya is slow and over half of the connections are in use, only as many as there are free connections.
        """
        is_slow = self.asking * 2 > self._most_asking
        most = min(self._window.size, self._most_asking) if is_slow else self._window.size
        return min(most - self.under_way, _MOST_IN_A_CLAIM)

    async def _reset_impossible(self) -> None:
        """At the start and every minute, make polls due that were scheduled before the clock was set back."""
        if self._reset_at is not None and self._clock.monotonic() - self._reset_at < _SECONDS_BETWEEN_RESETS:
            return
        now = self._clock.now()
        count = await self._claims.reset_impossible(self._schedule.bounds(now), to=now)
        self._reset_at = self._clock.monotonic()
        if count > 0:  # SQLite does not return the number
            log.warning("poll.recalled", count=count)

    async def _poll(self, claimed: Claimed) -> PollResult | None:
        lease = claimed.lease
        try:
            is_valid = await self._limiter.wait_for_slot(claimed.reservation, ahead=_CONNECT_AHEAD)
            if not is_valid or len(self._connected) >= self._most_asking:
                return given_back(lease, self._clock.now())
            self._connected.add(lease.generation_id)
            self._connecting.add(lease.generation_id)
            return await self._ask(lease, partial(self._wait_connected, claimed))
        except DatabaseUnavailable:
            return given_back(lease, self._clock.now())
        except Exception as error:
            # One generation that causes a bug must not stop the others, nor be polled without a pause.
            log.exception("poll.broken", generation_id=lease.generation_id)
            following = self._schedule.after_failure(lease, self._clock.now())
            return failed(lease, following, f"broken {type(error).__name__}")

    async def _wait_connected(self, claimed: Claimed) -> bool:
        """Wait for the slot on an open connection; returns whether to send the request now.

        Opening the connection may have taken longer than until the slot, and would again after the next claim: so one
        poll at a time gets another slot then, and leaves an open connection for the others.
        """
        self._connecting.discard(claimed.lease.generation_id)
        may_send = await self._limiter.wait_for_slot(claimed.reservation)
        if not may_send and not self._late.locked():
            async with self._late:
                may_send = await self._limiter.acquire_for_poll()
        if may_send:
            self._asking.add(claimed.lease.generation_id)
        return may_send

    async def _ask(self, lease: PollLease, before_send: BeforeSend) -> PollResult | None:
        """Poll and record; returns None when the ledger has recorded it, else the poll state to write."""
        try:
            claim = await self._client.get_generation(lease.generation_id, before_send=before_send)
        except RequestWithheld:
            return given_back(lease, self._clock.now())
        except RivyaError as error:
            POLLS.labels(result_of(error)).inc()
            if self.on_failed is not None:
                self.on_failed(self._clock.now())
            self._errors = 0 if isinstance(error, RivyaNotFound) else self._errors + 1
            return await self._after_error(lease, error)
        POLLS.labels(claim.status).inc()
        self._errors = 0
        await self._limiter.record_poll_success()
        return await self._report(lease, claim)

    async def _report(self, lease: PollLease, claim: Claim) -> PollResult | None:
        now = self._clock.now()
        following = self._schedule.after_answer(lease, now)
        report = Report(source=Source.POLL, reported_at=now, claim=claim, next_poll=following)
        try:
            recorded = await self._batch.record(report)
        except ServiceError as error:
            return self._failed(lease, f"not_recorded {error.code}")
        is_stalled = recorded.generation is not None and recorded.generation.tracking is Tracking.STALLED
        if is_stalled and lease.state is not Tracking.STALLED:
            _log_tracking(lease.generation_id, Tracking.STALLED)
        return None

    async def _after_error(self, lease: PollLease, error: RivyaError) -> PollResult:
        if isinstance(error, ACCOUNT_ERRORS):
            await self._limiter.record_poll_error(error)
            return given_back(lease, self._clock.now())
        if isinstance(error, RivyaNotFound):
            await self._limiter.record_poll_success()
            now, described = self._clock.now(), error_of(error)
            in_a_row = lease.not_found_count + 1
            _log_failed(lease, error=described, request_id=error.request_id, in_a_row=in_a_row)
            return not_found(lease, self._schedule.after_not_found(lease, now), described, now=now)
        request_id = getattr(error, "request_id", None)
        retry_after = getattr(error, "retry_after", None)
        return self._failed(lease, error_of(error), request_id=request_id, retry_after=retry_after)

    def _failed(
        self, lease: PollLease, described: str, *, request_id: str | None = None, retry_after: float | None = None
    ) -> PollResult:
        _log_failed(lease, error=described, request_id=request_id, in_a_row=lease.failures + 1)
        following = self._schedule.after_failure(lease, self._clock.now(), retry_after=retry_after)
        return failed(lease, following, described)

    def _finished(self, task: "asyncio.Task[PollResult | None]") -> None:
        lease = self._tasks.pop(task).lease
        self._window.adapt(was_sent=lease.generation_id in self._asking)
        for polls in (self._connected, self._connecting, self._asking):
            polls.discard(lease.generation_id)
        result = given_back(lease, self._clock.now()) if task.cancelled() else task.result()
        if result is not None:
            self._results.append(result)

    async def _write(self) -> None:
        """Write the results of polls; on `DatabaseUnavailable` they are kept for the next run."""
        if not self._results:
            return
        waiting, self._results = self._results, []
        try:
            written = await self._claims.record_poll_failures(waiting)
        except DatabaseUnavailable:
            self._results = waiting + self._results
            raise
        for result in written:
            if result.changed.state is not result.lease.state:
                _log_tracking(result.lease.generation_id, result.changed.state)


def _log_failed(lease: PollLease, *, error: str, request_id: str | None, in_a_row: int) -> None:
    ids = {"generation_id": lease.generation_id, "rivya_request_id": request_id}
    log.warning("poll.failed", **ids, error=error, in_a_row=in_a_row)


def _log_tracking(generation_id: str, tracking: Tracking) -> None:
    if tracking is Tracking.LOST:
        LOST.inc()
        log.warning("generation.lost", generation_id=generation_id)
    if tracking is Tracking.STALLED:
        STALLED.inc()
        log.warning("generation.stalled", generation_id=generation_id)


# The poll state to write after a poll without a report. Pure.


_RESULTS: tuple[tuple[type[RivyaError], str], ...] = (
    (RivyaRateLimited, "rate_limited"),
    (RivyaUnauthorized, "unauthorized"),
    (RivyaForbidden, "unauthorized"),
    (RivyaNotFound, "not_found"),
    (RivyaRefused, "refused"),
    (RivyaUnreadable, "unreadable"),
)


def result_of(error: RivyaError) -> str:
    """The kind of a poll's error, as it is counted in `receiver_polls`."""
    return next((word for kind, word in _RESULTS if isinstance(error, kind)), "unavailable")


def error_of(error: RivyaError) -> str:
    """The kind of the error, with Rivya's status and code where there are any; never a message or a body."""
    known = (getattr(error, "status", None), getattr(error, "code", None))
    return " ".join([result_of(error), *(str(part) for part in known if part is not None)])


def given_back(lease: PollLease, now: datetime) -> PollResult:
    """The result for a generation that was not polled: due at once, for any poller."""
    return PollResult(lease, replace(lease, next_poll_at=now))


def failed(lease: PollLease, following: NextPoll, error: str) -> PollResult:
    """The result of a failed poll."""
    return _polled(lease, following, last_error=error, failures=lease.failures + 1)


def not_found(lease: PollLease, following: NextPoll, error: str, *, now: datetime) -> PollResult:
    """The result of a 404, which counts as an answer."""
    count, since = lease.not_found_count + 1, lease.not_found_since or now
    return _polled(lease, following, last_error=error, failures=0, not_found_count=count, not_found_since=since)


def _polled(lease: PollLease, following: NextPoll, **changes: Any) -> PollResult:  # noqa: ANN401 - members of a lease
    changes |= {"next_poll_at": following.poll_at, "state": following.tracking, "polls": lease.polls + 1}
    return PollResult(lease, replace(lease, **changes))
