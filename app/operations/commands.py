"""Operator commands for one generation: poll it now, or delete it."""

import structlog

from app.core.clock import Clock
from app.core.database import Database
from app.core.errors import NotFound, ServiceError
from app.ledger.decide import Recorded
from app.ledger.models import Report, Source
from app.ledger.queries import Queries
from app.ledger.recorder import Recorder
from app.operations.retention import Pruning
from app.ratelimit.limiter import RateLimiter
from app.rivya.client import RivyaClient
from app.rivya.errors import RivyaError, RivyaNotFound

log = structlog.stdlib.get_logger(__name__)


class StillOpen(ServiceError):
    """409: its outcome isn't known yet."""

    status = 409
    code = "still_open"


class NotNow(ServiceError):
    """503: the budget of requests to Rivya is used up, Rivya rejects our key, or the generation is locked."""

    status = 503
    code = "not_now"


class GenerationCommands:
    """Commands for one generation. All raise `DatabaseUnavailable`."""

    def __init__(
        self, database: Database, ledger: Recorder, *, client: RivyaClient, limiter: RateLimiter, clock: Clock
    ) -> None:
        self._queries = Queries(database)
        self._pruning = Pruning(database)
        self._ledger = ledger
        self._client = client
        self._limiter = limiter
        self._clock = clock

    async def poll(self, generation_id: str) -> Recorded:
        """Ask Rivya now, within the budget that all replicas share, and record the response; returns the result.

        Raises `NotFound`, `NotNow`, and what `RivyaClient` raises.
        """
        if not await self._queries.generations_by_id([generation_id]):
            raise _unknown(generation_id)
        if not await self._limiter.acquire():
            why = (await self._limiter.health()).detail
            raise NotNow(f"no request to Rivya may leave now, try again later: {why}")
        try:
            generation = await self._client.get_generation(generation_id)
        except RivyaNotFound:
            await self._limiter.record_poll_success()
            raise
        except RivyaError as error:
            await self._limiter.record_poll_error(error)
            raise
        await self._limiter.record_poll_success()
        report = Report(source=Source.OPERATOR, reported_at=self._clock.now(), claim=generation)
        [recorded] = await self._ledger.record([report])
        log.info(
            "generation.polled", generation_id=generation_id, outcome=recorded.outcome, source=Source.OPERATOR.value
        )
        return recorded

    async def delete(self, generation_id: str, *, even_open: bool = False) -> None:
        """Delete a generation, its history, its notifications, and the bodies of its deliveries and its create.

        Its event ids stay. If the generation is deleted already, only the remaining bodies of its create are emptied. A
        later report from Rivya creates it again. Raises `NotFound`, `NotNow`, and `StillOpen` unless `even_open`.
        """
        now = self._clock.now()
        generation = (await self._queries.generations_by_id([generation_id])).get(generation_id)
        if generation is not None and not (generation.status.is_terminal or even_open):
            raise StillOpen(f"{generation_id} is {generation.status}: --open forgets it all the same")
        submitted = await self._pruning.submissions_of(generation_id)
        if generation is None and not submitted:
            raise _unknown(generation_id)
        ids = [] if generation is None else [generation_id]
        if await self._pruning.generations(ids, now=now, submissions=submitted) < len(ids):
            raise NotNow(f"{generation_id} is being changed at this moment")
        await self._pruning.notifications_of(generation_id)
        log.info("generation.forgotten", generation_id=generation_id, source=Source.OPERATOR.value)


def _unknown(generation_id: str) -> NotFound:
    return NotFound(f"{generation_id} is not in the record")
