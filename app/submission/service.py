"""Accepts a caller's create: stores it, sends it once and replies; the same key gets the same reply again."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from app.core.auth import Caller
from app.core.clock import Clock
from app.core.errors import DatabaseUnavailable, Overloaded
from app.core.records import request_id, uuid7
from app.core.waiters import Waiters, until_set
from app.ratelimit.limiter import RateLimiter
from app.submission import models
from app.submission.models import Create, Reply, State, Submission
from app.submission.sender import Sender, log_answered, log_rejected
from app.submission.store import SubmissionRepository
from app.tokens.spending import check_model

_SECONDS_BETWEEN_READS = 0.25
_SECONDS_TO_ANSWER = 8.0
_SECONDS_TO_FINISH = 5.0
_SECONDS_FOR_REPETITION = 30.0
"""A repeated create waits for so long for the one that is being sent."""

Pause = Callable[[asyncio.Event, float], Awaitable[None]]
"""Waits for an event, but no longer than so many seconds."""


class SubmissionService:
    """Runs each create as a task of its own, so that a caller that disconnects does not interrupt it."""

    def __init__(
        self,
        submissions: SubmissionRepository,
        sender: Sender,
        limiter: RateLimiter,
        clock: Clock,
        *,
        waiters: Waiters,
        pause: Pause = until_set,
        most_at_once: int = 100,
    ) -> None:
        self._submissions = submissions
        self._sender = sender
        self._limiter = limiter
        self._clock = clock
        self._waiters = waiters
        self._pause = pause
        self._most_at_once = most_at_once
        self._tasks: set[asyncio.Task[Reply]] = set()
        self._stopping = False

    @property
    def under_way(self) -> int:
        """How many creates are under way."""
        return len(self._tasks)

    def new_key(self) -> str:
        """An Idempotency-Key for a caller that sent none."""
        return str(uuid7(self._clock.now()))

    async def submit(self, create: Create, key: str, caller: Caller) -> Reply:
        """The reply to a create. Raises `Overloaded` if too many are running; nothing is stored then."""
        if self._stopping or self.under_way >= self._most_at_once:
            log_rejected("overloaded")
            raise Overloaded("Too many creates are under way.")
        task = asyncio.create_task(self._guarded(create, key, caller))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def begin_shutdown(self) -> None:
        """Begin the shutdown: Rivya has some seconds left to answer."""
        asyncio.get_running_loop().call_later(_SECONDS_TO_ANSWER, self._sender.abort_pending)

    async def stop(self) -> None:
        """Accept no more creates, answer the callers that wait, and return when every running create is stored.

        Call it before the ledger's write queue is stopped. A create that Rivya has not answered in some seconds is
        stored as unknown, and another process retries it.
        """
        self._stopping = True
        self._waiters.wake_all()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_SECONDS_TO_FINISH)
            self._sender.abort_pending()
            await asyncio.gather(*late, return_exceptions=True)

    async def _guarded(self, create: Create, key: str, caller: Caller) -> Reply:
        try:
            return await self._answer(create, key, caller)
        except DatabaseUnavailable:
            # It may be committed nevertheless, and then the background sends it: the caller has to know the key.
            log_rejected("database_unavailable")
            return models.database_unavailable(key, request_id=request_id())

    async def _answer(self, create: Create, key: str, caller: Caller) -> Reply:
        check_model(caller, create.model)
        now = self._clock.now()
        stored, is_new = await self._submissions.begin(create, key, caller, now=now)
        if is_new:
            return await self._send(stored)
        is_anothers = caller.owner is not None and stored.submitted_by != caller.owner
        if stored.request_hash != create.digest or is_anothers:
            log_answered(stored, "conflict")
            return models.conflict(request_id=request_id())
        if stored.state is State.REJECTED and not stored.is_final:
            claimed = await self._submissions.claim_again(stored, create, caller, now=now)
            if claimed is not None:
                return await self._send(claimed)
        return await self._answer_again(stored.id, key)

    async def _send(self, claimed: Submission) -> Reply:
        sent = await self._sender.send(claimed, in_doubt=False)
        if sent.error is not None:
            with suppress(DatabaseUnavailable):  # the caller gets Rivya's reply in any case
                await self._limiter.record_error(sent.error)
        return sent.reply

    async def _answer_again(self, submission_id: str, key: str) -> Reply:
        """The first reply as soon as it is stored; 504 after 30 seconds or at a stop, 410 if emptied."""
        deadline = self._clock.monotonic() + _SECONDS_FOR_REPETITION
        with self._waiters.wait(submission_id) as woken:
            while True:
                woken.clear()
                known = await self._submissions.find(submission_id)
                if known.reply is not None:
                    log_answered(known, "replayed")
                    return known.reply
                if known.is_emptied:
                    log_answered(known, "expired")
                    return models.expired(known.generation_id, request_id=request_id())
                if self._stopping or self._clock.monotonic() >= deadline:
                    log_answered(known, "waited")
                    return models.unknown(key, request_id=request_id())
                await self._pause(woken, _SECONDS_BETWEEN_READS)
