"""The one function through which everything anybody learns enters the record."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database import Database
from app.core.errors import DatabaseUnavailable
from app.ledger import rows
from app.ledger.changes import Changes
from app.ledger.decide import FirstPoll
from app.ledger.measures import note_recorded
from app.ledger.plan import Plan, Recorded, plan
from app.ledger.report import Report
from app.ledger.state import Generation
from app.ledger.statements import Statements
from app.ledger.status import Outcome

_TRIES = 5


class LostRace(Exception):
    """A generation was inserted by somebody else between our look and our write."""


class Ledger:
    """Records reports in the database, and tells `changes` what became of them."""

    def __init__(self, database: Database, *, first_poll: FirstPoll, changes: Changes) -> None:
        self._database = database
        self._first_poll = first_poll
        self._changes = changes
        self._statements = Statements(is_sqlite=database.is_sqlite)

    async def record(self, reports: Sequence[Report]) -> list[Recorded]:
        """Record `reports` in one transaction, all or none, and return what became of each, in their order.

        Recording the same report again changes nothing (a delivery's attempts excepted). Locks the generations
        concerned in the order of their ids. Raises `DatabaseUnavailable` when nothing could be decided.
        """
        for _ in range(_TRIES):
            try:
                made = await self._record_once(reports)
            except LostRace:
                continue
            note_recorded(reports, made.recorded)
            self._changes.publish(made.recorded)
            return made.recorded
        raise DatabaseUnavailable

    async def _record_once(self, reports: Sequence[Report]) -> Plan:
        async with self._database.transaction() as connection:
            generations = await self._lock(connection, reports)
            known_events = await self._known_events(connection, reports)
            made = plan(reports, generations, known_events, first_poll=self._first_poll)
            await self._write(connection, made)
        return made

    async def _lock(self, connection: AsyncConnection, reports: Sequence[Report]) -> dict[str, Generation]:
        ids = sorted({report.claim.id for report in reports if report.claim is not None})
        if not ids:
            return {}
        found = await connection.execute(self._statements.lock_generations, self._ids(ids))
        return {row["id"]: rows.to_generation(row) for row in found.mappings()}

    async def _known_events(self, connection: AsyncConnection, reports: Sequence[Report]) -> dict[str, Outcome]:
        ids = sorted({report.delivery.event_id for report in reports if report.delivery is not None})
        if not ids:
            return {}
        found = await connection.execute(self._statements.known_events, self._ids(ids))
        return {event_id: Outcome(outcome) for event_id, outcome in found}

    async def _write(self, connection: AsyncConnection, made: Plan) -> None:
        say = self._statements
        if made.generations:
            values = [rows.from_generation(made.generations[key]) for key in sorted(made.generations)]
            written = await connection.execute(say.write_generations, say.parameters(values))
            if written.rowcount != len(values):
                raise LostRace
        if made.deliveries:
            values = [rows.from_delivery(made.deliveries[key]) for key in sorted(made.deliveries)]
            await connection.execute(say.write_deliveries, say.parameters(values))
        if made.transitions:
            values = [rows.from_transition(transition) for transition in made.transitions]
            await connection.execute(say.write_transitions, say.parameters(values))

    def _ids(self, ids: list[str]) -> Mapping[str, Any]:
        return {"ids": orjson.dumps(ids).decode() if self._database.is_sqlite else ids}
