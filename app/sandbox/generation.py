"""One generation as Rivya keeps it: four statuses, of which two are final."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from app.sandbox.charges import Charge
from app.sandbox.clock import stamp
from app.sandbox.models import Model
from app.sandbox.wishes import Wishes

Status = Literal["queued", "processing", "succeeded", "failed"]
STATUSES: tuple[str, ...] = get_args(Status)
_RANK = {"queued": 0, "processing": 1, "succeeded": 2, "failed": 2}


@dataclass
class Generation:
    """The truth about one generation, and who asked for it how often."""

    id: str
    account: str
    model: Model
    charge: Charge
    created_at: datetime
    updated_at: datetime
    client_request_id: str | None = None
    wishes: Wishes = field(default_factory=Wishes)
    status: Status = "queued"
    moves: list[dict[str, str]] = field(default_factory=list)
    polls: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=1000))

    @property
    def is_terminal(self) -> bool:
        """Nothing follows."""
        return _RANK[self.status] == 2

    def move(self, status: Status, at: datetime) -> None:
        """Go forward; raises ValueError on any other direction."""
        if _RANK[status] <= _RANK[self.status]:
            raise ValueError(f"Generation {self.id} is {self.status} and can't become {status}.")
        self.status = status
        self.updated_at = at
        self.moves.append({"status": status, "at": stamp(at)})

    def as_json(self, status: Status | None = None) -> dict[str, Any]:
        """The documented object; another status than the true one makes the object of a false report."""
        told = self.status if status is None else status
        cost = {"succeeded": self.charge.reserved, "failed": 0}.get(told)
        url = f"https://media.example/{self.id}.{self.model.extension}"
        return {
            "id": self.id,
            "status": told,
            "model": self.model.id,
            "reserved_credits": self.charge.reserved,
            "final_credits": cost,
            "created_at": stamp(self.created_at),
            "updated_at": stamp(self.updated_at),
            "result": {"primary_url": url, "urls": [url]} if told == "succeeded" else None,
            "error": {"code": "generation_failed", "message": "The model gave up."} if told == "failed" else None,
        }
