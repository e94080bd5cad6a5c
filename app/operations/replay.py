"""Records stored deliveries again, as if they came now, with the operator as the source."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import structlog
from sqlalchemy import Select, literal, select, tuple_

from app.core.clock import Clock
from app.core.database import Database
from app.intake.webhook import parse_delivery
from app.ledger import rows
from app.ledger.decide import FirstPoll, Recorded, plan
from app.ledger.models import DeliveryFilter, Generation, Position, Report, Source, StoredDelivery
from app.ledger.queries import Queries
from app.ledger.recorder import Recorder
from app.ledger.sql import delivery_conditions
from app.ledger.tables import deliveries

_AT_ONCE: Final = 100
_d = deliveries.c

log = structlog.stdlib.get_logger(__name__)


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
            source=Source.OPERATOR,
            reported_at=read.reported_at,
            claim=read.claim,
            replayed_event_id=delivery.event_id,
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
