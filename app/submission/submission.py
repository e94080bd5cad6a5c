"""A submission as it stands: one row of `submissions`, immutable in memory."""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import RowMapping

from app.submission.reply import Reply
from app.submission.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """`attempts` numbers the attempt that has it, `retries` those of the background since a caller last sent it."""

    id: str
    key: str = field(repr=False)
    request_hash: str
    request: bytes = field(repr=False)
    submitted_by: str | None
    """Name of the token that last sent it."""
    state: State
    is_final: bool
    attempts: int
    retries: int
    sent_at: datetime
    generation_id: str | None
    """What Rivya made of it."""
    reply: Reply | None = field(repr=False)
    """What was answered; None while its outcome is unknown, and where the answer is no longer kept."""
    is_emptied: bool
    """It was answered, and its bodies were emptied since, for its age or on an operator's order."""

    @property
    def is_open(self) -> bool:
        """It is being sent, or what became of it is unknown."""
        return self.state in (State.SENDING, State.UNKNOWN)


def from_row(row: RowMapping) -> Submission:
    """A row of `submissions`."""
    return Submission(
        id=row["id"],
        key=row["idempotency_key"],
        request_hash=row["request_hash"],
        request=row["request"],
        submitted_by=row["submitted_by"],
        state=State(row["state"]),
        is_final=bool(row["is_final"]),
        attempts=row["attempts"],
        retries=row["retries"],
        sent_at=row["sent_at"],
        generation_id=row["generation_id"],
        reply=_reply(row),
        is_emptied=row["response_status"] is not None and row["response"] is None,
    )


def _reply(row: RowMapping) -> Reply | None:
    if row["response"] is None:
        return None
    return Reply(
        status=row["response_status"],
        body=row["response"],
        retry_after=row["response_retry_after"],
        is_replay=True,
    )
