"""Who waits for the commit of a report, and how they are told."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from app.core.errors import ServiceError
from app.ledger.plan import Recorded
from app.ledger.report import Report

log = structlog.stdlib.get_logger(__name__)


class Answer(Protocol):
    """Is told what became of one report: a future, or what does without its turn of the event loop."""

    def done(self) -> bool:
        """It has been told, or nobody wants to know any more."""

    def set_result(self, recorded: Recorded, /) -> None:
        """The report is committed."""

    def set_exception(self, error: ServiceError, /) -> None:
        """It is not."""


@dataclass(slots=True, eq=False)
class Waiting:
    """One report, on its way into the record."""

    report: Report
    answer: Answer
    deadline: float
    """On the event loop's clock."""


def tell(answer: Answer, said: Recorded | ServiceError) -> None:
    """Tell one. Whoever can't be told any more is logged: the writer that tells it serves all the others."""
    try:
        if isinstance(said, ServiceError):
            answer.set_exception(said)
        else:
            answer.set_result(said)
    except Exception as error:  # noqa: BLE001 - one recorded item
        log.warning("report.not_answered", error=type(error).__name__)


def fail(batch: Sequence[Waiting], error: ServiceError) -> None:
    """Tell all who still wait that theirs is not committed."""
    for waiting in batch:
        if waiting.answer.done():
            continue
        tell(waiting.answer, error)
        if isinstance(waiting.answer, asyncio.Future):
            waiting.answer.exception()  # seen: a sender that gave up will not come to fetch it
