"""The life of a generation: queued → processing → succeeded | failed; steps may be skipped, never undone."""

from enum import StrEnum


class Status(StrEnum):
    """Rivya's four words."""

    QUEUED = "queued"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        """Nothing follows."""
        return self is Status.SUCCEEDED or self is Status.FAILED


class Tracking(StrEnum):
    """What we do about a generation."""

    WATCHING = "watching"
    """Open; polled when its callback is overdue."""
    SETTLED = "settled"
    """Its outcome is known."""
    STALLED = "stalled"
    """Open past our horizon: our own time-out, not Rivya's failure; polled rarely, still accepts its outcome."""
    LOST = "lost"
    """Rivya says again and again that it does not exist; not polled, still accepts an outcome."""


class Outcome(StrEnum):
    """What a report did to the ledger."""

    APPLIED = "applied"
    """It moved a generation, or was the first word of one."""
    STALE = "stale"
    """It says what is known already, or something older."""
    CONFLICT = "conflict"
    """It contradicts a terminal status; kept, not believed."""
    TEST = "test"
    """A test event."""
    UNKNOWN_TYPE = "unknown_type"
    """A verified event of a type we don't know."""
    UNREADABLE = "unreadable"
    """A verified delivery in which no generation could be found."""


_RANK = {Status.QUEUED: 0, Status.PROCESSING: 1, Status.SUCCEEDED: 2, Status.FAILED: 2}


def judge(current: Status | None, claimed: Status) -> Outcome:
    """What a claim is worth, given what is known (None: never heard of)."""
    if current is None or _RANK[claimed] > _RANK[current]:
        return Outcome.APPLIED
    if current.is_terminal and claimed.is_terminal and claimed is not current:
        return Outcome.CONFLICT
    return Outcome.STALE
