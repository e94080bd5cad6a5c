"""Who waits for the commit of a report, and how they are told."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from app.core.errors import ServiceError
from app.ledger.plan import Recorded
from app.ledger.report import Report


class Answer(Protocol):
    """Is told what became of one report: a future, or what does without its turn of the event loop."""

    def done(self) -> bool:
        """It has been told, or nobody wants to know any more."""

    def set_result(self, recorded: Recorded, /) -> None:
        """The report is committed. Must not raise."""

    def set_exception(self, error: ServiceError, /) -> None:
        """It is not. Must not raise."""


@dataclass(slots=True, eq=False)
class Waiting:
    """One report, on its way into the record."""

    report: Report
    answer: Answer
    deadline: float
    """On the event loop's clock."""


def fail(batch: list[Waiting], error: ServiceError) -> None:
    """Tell all of them that theirs is not committed."""
    for waiting in batch:
        with suppress(asyncio.InvalidStateError):
            waiting.answer.set_exception(error)
            if isinstance(waiting.answer, asyncio.Future):
                waiting.answer.exception()  # seen: a sender that gave up will not come to fetch it
