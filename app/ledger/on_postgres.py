"""Records a batch on PostgreSQL: one statement to look, one to write, and locks only where somebody else was faster."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg
import orjson

from app.core.drivers import Direct
from app.ledger import rows
from app.ledger.on_postgres_statements import LOCK, LOOK, WRITE, WRITE_NEW
from app.ledger.plan import Decide, Plan
from app.ledger.report import Report
from app.ledger.status import Outcome


class LostRace(Exception):
    """Somebody else was first to change a generation, between our look and our write; nothing was written."""


class PostgresRecord:
    """Speaks to the driver itself, in constant text.

    Every write of a generation counts its `revision`, and `WRITE` writes only what still has the revision that was
    looked at, all or nothing. So nothing needs to be locked in between, and one or two exchanges do instead of five.
    """

    def __init__(self, direct: Direct) -> None:
        self._direct = direct
        self._expects_news = True
        """The last batch was about nothing that was known."""

    async def record(self, reports: Sequence[Report], decide: Decide) -> Plan:
        """One transaction. Raises `LostRace` and `DatabaseUnavailable`; nothing is written then.

        Where all is new, as it is where others create and we are only called back, one exchange does.
        """
        concerned = _concerned(reports)
        with _races():
            if self._expects_news:
                made = decide({}, {})
                found = await self._direct.fetch(WRITE_NEW, *_written(made), *concerned)
                if not found:
                    return made
            else:
                found = await self._direct.fetch(LOOK, *concerned)
            self._expects_news = not found
            made = _decided(found, decide)
            await self._direct.fetch(WRITE, *_written(made), len(made.generations))
        return made

    async def record_locked(self, reports: Sequence[Report], decide: Decide) -> Plan:
        """The same with the generations locked, in the order of their ids, so that the next try is the last.

        Raises `LostRace` only where somebody else inserts at this very moment.
        """
        with _races():
            async with self._direct.transaction() as connection:
                ids, event_ids = _concerned(reports)
                await connection.execute(LOCK, ids)
                found = await connection.fetch(LOOK, ids, event_ids)
                made = _decided(found, decide)
                await connection.fetch(WRITE, *_written(made), len(made.generations))
        return made


@contextmanager
def _races() -> Iterator[None]:
    try:
        yield
    except (asyncpg.DivisionByZeroError, asyncpg.UniqueViolationError) as error:
        raise LostRace from error


def _concerned(reports: Sequence[Report]) -> tuple[list[str], list[str]]:
    ids = {report.claim.id for report in reports if report.claim is not None}
    return list(ids), [report.delivery.event_id for report in reports if report.delivery is not None]


def _decided(found: Iterable[Any], decide: Decide) -> Plan:
    generations, known_events = {}, {}
    for row in found:
        if row["known_event_id"] is None:
            generations[row["id"]] = rows.to_generation(row)
        else:
            known_events[row["known_event_id"]] = Outcome(row["known_outcome"])
    return decide(generations, known_events)


def _written(made: Plan) -> tuple[str, str, str, bytes]:
    """Rows as JSON texts: the driver looks at every single element of an array, which takes it five times as long.

    In the order of their keys, everywhere: two batches can wait for each other, but never in a circle.
    """
    bodies, delivered = rows.bodies_apart(made.deliveries[key] for key in sorted(made.deliveries))
    generations = [rows.from_generation(made.generations[key]) for key in sorted(made.generations)]
    transitions = [rows.from_transition(transition) for transition in made.transitions]
    return _json(generations), _json(delivered), _json(transitions), bodies


def _json(written: Sequence[Sequence[Any]]) -> str:
    return orjson.dumps(written).decode()
