"""How deliveries fared at one endpoint since the last look, and what that makes of its row; pure."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Fared:
    """The health columns of an endpoint."""

    last_verified_at: datetime | None
    last_refused_at: datetime | None
    refusals: int


@dataclass(slots=True)
class Tally:
    """What this process saw and has not yet written down."""

    verified_at: datetime | None = None
    refused_at: datetime | None = None
    refusals: int = 0
    """Since the last one that was verified."""

    def note_verified(self, at: datetime) -> None:
        """A delivery was verified."""
        self.verified_at = _latest(self.verified_at, at)
        self.refusals = 0

    def note_refused(self, at: datetime) -> None:
        """A delivery was refused."""
        self.refused_at = _latest(self.refused_at, at)
        self.refusals += 1

    def merged(self, fared: Fared) -> Fared:
        """The row with this added: times only grow, and a verified delivery ends the count of refusals."""
        verified = _latest(fared.last_verified_at, self.verified_at)
        refused = _latest(fared.last_refused_at, self.refused_at)
        before = (
            0 if self.verified_at is not None and _is_not_after(fared.last_refused_at, verified) else fared.refusals
        )
        refusals = 0 if _is_not_after(refused, verified) else before + self.refusals
        return Fared(verified, refused, refusals)

    def added(self, later: "Tally") -> "Tally":
        """This one and what came after it."""
        refusals = later.refusals + (0 if later.verified_at is not None else self.refusals)
        return Tally(_latest(self.verified_at, later.verified_at), _latest(self.refused_at, later.refused_at), refusals)


def _latest(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((at for at in (one, other) if at is not None), default=None)


def _is_not_after(refused: datetime | None, verified: datetime | None) -> bool:
    return refused is None or (verified is not None and refused <= verified)
