"""How those who wait for a report to be recorded are told what became of it, without holding up each other."""

from typing import Protocol

import structlog

from app.core.errors import ServiceError
from app.ledger.plan import Recorded

log = structlog.stdlib.get_logger(__name__)


class Answer(Protocol):
    """Is told what became of one report: a future, or what does without its turn of the event loop."""

    def done(self) -> bool:
        """It has been told, or nobody wants to know any more."""

    def set_result(self, recorded: Recorded, /) -> None:
        """The report is committed."""

    def set_exception(self, error: ServiceError, /) -> None:
        """It is not."""


def tell(answer: Answer, said: Recorded | ServiceError) -> None:
    """Tell one. Whoever can't be told any more is logged: the writer that tells it serves all the others."""
    try:
        if isinstance(said, ServiceError):
            answer.set_exception(said)
        else:
            answer.set_result(said)
    except Exception as error:  # noqa: BLE001 - one recorded item
        log.warning("report.not_answered", error=type(error).__name__)
