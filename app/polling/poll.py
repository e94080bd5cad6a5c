"""One poll: ask Rivya about a generation, report what it says, or say what is to be written instead."""

from app.core.clock import Clock
from app.core.errors import ServiceError
from app.ledger.models import Claim, Polled, Report, Source, Tracking
from app.ledger.poll_state import Held, PollNote
from app.ledger.write_queue import Batch
from app.polling import notes
from app.polling.measures import POLLS, note_failed, note_turned
from app.polling.timing import Timing
from app.ratelimit.limiter import RateLimiter
from app.rivya.client import RivyaClient
from app.rivya.errors import (
    RivyaError,
    RivyaForbidden,
    RivyaNotAsked,
    RivyaNotFound,
    RivyaRateLimited,
    RivyaUnauthorized,
    RivyaUnreadable,
)
from app.rivya.transport import MayLeave

_OUR_AFFAIR = (RivyaRateLimited, RivyaUnauthorized, RivyaForbidden)
"""Says something about us and nothing about the generation."""


class Polling:
    """Asks and reports; no transaction is open while Rivya is asked."""

    def __init__(
        self, client: RivyaClient, batch: Batch, *, timing: Timing, limiter: RateLimiter, clock: Clock
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

    async def poll(self, held: Held, may_leave: MayLeave) -> PollNote | None:
        """Ask and report; None when the ledger has it, else what to write. Raises `DatabaseUnavailable`."""
        try:
            said = await self._client.get_generation(held.id, may_leave=may_leave)
            if said.id != held.id:
                raise RivyaUnreadable("the answer is about another generation", status=200)
        except RivyaNotAsked:
            return notes.given_back(held, self._clock.now())
        except RivyaError as error:
            POLLS.labels(notes.result_of(error)).inc()
            self._errors = 0 if isinstance(error, RivyaNotFound) else self._errors + 1
            return await self._after_error(held, error)
        POLLS.labels(said.status).inc()
        self._errors = 0
        await self._limiter.record_poll_success()
        return await self._report(held, said)

    async def _report(self, held: Held, said: Claim) -> PollNote | None:
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

    async def _after_error(self, held: Held, error: RivyaError) -> PollNote:
        if isinstance(error, _OUR_AFFAIR):
            await self._limiter.record_poll_error(error)
            return notes.given_back(held, self._clock.now())
        if isinstance(error, RivyaNotFound):
            await self._limiter.record_poll_success()
            return self._not_found(held, error)
        request_id = getattr(error, "request_id", None)
        retry_after = getattr(error, "retry_after", None)
        return self._failed(held, notes.error_of(error), request_id=request_id, retry_after=retry_after)

    def _not_found(self, held: Held, error: RivyaNotFound) -> PollNote:
        now = self._clock.now()
        described, count = notes.error_of(error), held.not_found_count + 1
        note_failed(held.id, error=described, request_id=error.request_id, in_a_row=count)
        return notes.not_found(held, self._timing.after_not_found(held, now), described, now=now)

    def _failed(
        self, held: Held, described: str, *, request_id: str | None = None, retry_after: float | None = None
    ) -> PollNote:
        note_failed(held.id, error=described, request_id=request_id, in_a_row=held.poll_failures + 1)
        following = self._timing.after_failure(held, self._clock.now(), retry_after=retry_after)
        return notes.failed(held, following, described)
