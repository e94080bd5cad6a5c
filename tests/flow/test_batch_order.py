"""In which order a batch does its work."""

from collections.abc import Sequence

from app.core.clock import SystemClock
from app.core.errors import ServiceError
from app.ledger.decide import Recorded
from app.ledger.models import Report
from app.ledger.write_queue import WriteQueue
from tests.support.ledger_harness import LedgerHarness, open_ledger
from tests.support.reports import webhook


class Sender:
    """A sender in the fast path, with one list for all of what happens."""

    def __init__(self, happened: list[str]) -> None:
        self._happened = happened

    def done(self) -> bool:
        return False

    def set_result(self, recorded: Recorded, /) -> None:
        assert recorded.generation is not None
        self._happened.append(f"answered {recorded.generation.id}")

    def set_exception(self, error: ServiceError, /) -> None:
        raise error


class Ordered:
    """A ledger that tells when it is asked to do what."""

    def __init__(self, room: LedgerHarness, happened: list[str]) -> None:
        self._room = room
        self._happened = happened

    async def commit(self, reports: Sequence[Report]) -> list[Recorded]:
        self._happened += [f"began {report.generation_id}" for report in reports]
        return await self._room.ledger.commit(reports)

    def note(self, reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
        self._happened += [f"noted {report.generation_id}" for report in reports]
        self._room.ledger.note(reports, recorded)


async def test_what_was_committed_is_answered_then_the_next_is_begun_and_only_then_it_is_noted(
    database_url: str,
) -> None:
    async with open_ledger(database_url) as room:
        happened: list[str] = []
        batch = WriteQueue(Ordered(room, happened), SystemClock(), most_at_once=1)
        for generation_id in ("one", "two"):
            batch.enqueue(webhook(generation_id, "succeeded"), Sender(happened))
        await batch.start()
        await batch.stop()
        assert happened == [
            "began one", "answered one", "began two", "noted one", "answered two", "noted two",
        ], "and what came last is noted before it stops"  # fmt: skip
