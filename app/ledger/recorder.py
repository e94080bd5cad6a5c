"""What batches are recorded by, and the error for one report that can't be."""

from collections.abc import Sequence
from typing import Protocol

from app.core.errors import ServiceError
from app.ledger.plan import Recorded
from app.ledger.report import Report


class RecordFailed(ServiceError):
    """This one report can't be recorded, though the database is well."""

    status = 503
    code = "not_recorded"

    def __init__(self) -> None:
        super().__init__("This could not be recorded; it has been logged.", retry_after=60)


class Recorder(Protocol):
    """Records a batch in one transaction: `app.ledger.record.Ledger`."""

    async def commit(self, reports: Sequence[Report]) -> list[Recorded]:
        """All or none."""

    def note(self, reports: Sequence[Report], recorded: Sequence[Recorded]) -> None:
        """Tell everybody else of what was committed."""
