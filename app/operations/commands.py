"""Operator commands: poll a generation now, delete it, and record stored deliveries again."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import structlog
from sqlalchemy import Select, literal, select, tuple_

from app.core.clock import Clock
from app.core.database import Database
from app.core.errors import NotFound, ServiceError
from app.intake.webhook import parse_delivery
from app.ledger import rows
from app.ledger.decide import FirstPoll, Recorded, plan
from app.ledger.models import DeliveryFilter, Generation, Position, Report, Source, StoredDelivery
from app.ledger.queries import Queries
from app.ledger.recorder import Recorder
from app.ledger.sql import delivery_conditions
from app.ledger.tables import deliveries
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


_AT_ONCE: Final = 100
_d = deliveries.c


@dataclass(frozen=True, slots=True)
class Replayed:
    """A delivery and its result; None if it can't be replayed: it has no claim, or its body is deleted."""

    delivery: StoredDelivery
    recorded: Recorded | None

    @property
    def result(self) -> str:
        """The outcome in one word."""
        return "skipped" if self.recorded is None else str(self.recorded.outcome)

    @property
    def effect(self) -> str:
        """The outcome, and what becomes of the generation."""
        if self.recorded is None:
            is_pruned = self.delivery.body_pruned_at is not None
            return f"skipped: {'its body was pruned' if is_pruned else 'it has no status of a generation'}"
        generation_id = self.recorded.generation.id if self.recorded.generation is not None else "none"
        if (step := self.recorded.transition) is None:
            return f"{self.result}: generation {generation_id} stays as it is"
        return f"{self.result}: generation {generation_id} {step.from_status or 'unknown'} -> {step.to_status}"


class Replay:
    """Replays deliveries, oldest first. The stored delivery and its outcome stay unchanged, as evidence."""

    def __init__(self, database: Database, ledger: Recorder, *, clock: Clock, first_poll: FirstPoll) -> None:
        self._database = database
        self._ledger = ledger
        self._queries = Queries(database)
        self._clock = clock
        self._first_poll = first_poll

    async def apply(self, chosen: DeliveryFilter) -> AsyncIterator[Replayed]:
        """Replay each delivery in its own transaction. Raises `DatabaseUnavailable`; the yielded ones are committed."""
        async for delivery in self._stored(chosen):
            report = self._report(delivery)
            if report is None:
                yield Replayed(delivery, None)
                continue
            [recorded] = await self._ledger.record([report])
            log.info(
                "delivery.replayed",
                event_id=delivery.event_id,
                generation_id=report.generation_id,
                outcome=recorded.outcome,
                source=report.source,
            )
            yield Replayed(delivery, recorded)

    async def dry_run(self, chosen: DeliveryFilter) -> AsyncIterator[Replayed]:
        """The results that `apply` would have now; writes nothing. Raises `DatabaseUnavailable`."""
        known: dict[str, Generation] = {}
        async for delivery in self._stored(chosen):
            report = self._report(delivery)
            if report is None or report.claim is None:
                yield Replayed(delivery, None)
                continue
            if report.claim.id not in known:
                known |= await self._queries.generations_by_id([report.claim.id])
            planned = plan([report], known, {}, first_poll=self._first_poll)
            known |= {key: row.generation for key, row in planned.generations.items()}
            yield Replayed(delivery, planned.recorded[0])

    def _report(self, delivery: StoredDelivery) -> Report | None:
        if delivery.body_pruned_at is not None:
            return None
        read = parse_delivery(
            delivery.body or b"", (), header_id=delivery.event_id, endpoint_id=None, now=self._clock.now()
        )
        if read.claim is None:
            return None
        return Report(
            source=Source.OPERATOR, reported_at=read.reported_at, claim=read.claim, replayed_event_id=delivery.event_id
        )

    async def _stored(self, chosen: DeliveryFilter) -> AsyncIterator[StoredDelivery]:
        after: Position | None = None
        is_sqlite = self._database.is_sqlite
        while True:
            async with self._database.read() as connection:
                page = await connection.execute(page_statement(chosen, after, is_sqlite=is_sqlite))
                stored = [rows.to_delivery(row) for row in page.mappings()]
            if not stored:
                return
            for delivery in stored:
                yield delivery
            after = Position(stored[-1].received_at, stored[-1].event_id)


def page_statement(chosen: DeliveryFilter, after: Position | None, *, is_sqlite: bool) -> Select[Any]:
    """The statement that reads the next recorded deliveries of a choice, in the order of their arrival."""
    statement = select(deliveries).where(*delivery_conditions(chosen, is_sqlite=is_sqlite))
    if after is not None:
        position = tuple_(literal(after.at, _d.received_at.type), literal(after.id, _d.event_id.type))
        statement = statement.where(tuple_(_d.received_at, _d.event_id) > position)
    return statement.order_by(_d.received_at, _d.event_id).limit(_AT_ONCE)
