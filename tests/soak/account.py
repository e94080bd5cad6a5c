"""What was sent and what was answered while processes died: the account that is compared with the record at the end."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Account:
    """Kept by those who send; knows nothing of the database."""

    sent: Counter[str] = field(default_factory=Counter)
    """Event id → how often it was sent."""
    accepted: Counter[str] = field(default_factory=Counter)
    """Event id → how often it was answered 2xx."""
    truth: dict[str, str] = field(default_factory=dict)
    """Generation id → the status that Rivya told of it."""
    keys: set[str] = field(default_factory=set)
    """Every Idempotency-Key that was sent."""
    created: dict[str, str] = field(default_factory=dict)
    """Idempotency-Key → the generation that was answered."""
    reads: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    """`POST create 200` → how often; 0 where no answer came."""
    wrong: list[str] = field(default_factory=list)
    """What no answer may ever say."""

    def note_created(self, key: str, generation_id: str) -> None:
        """A create was answered 2xx: always with the same generation."""
        known = self.created.setdefault(key, generation_id)
        if known != generation_id:
            self.wrong.append(f"{key} was answered with {known} and with {generation_id}")
