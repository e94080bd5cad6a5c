"""Credits: reserved when a generation is created, settled when it ends, given back when it fails."""

from collections import deque
from dataclasses import dataclass
from typing import Any

from app.sandbox.errors import RivyaError


@dataclass
class Charge:
    """What one generation costs its account; `final` is None until it ends."""

    account: str
    idempotency_key: str | None
    generation_id: str
    reserved: int
    final: int | None = None


class Purse:
    """The credits of every account, and what took them."""

    def __init__(self, *, starting_credits: int, keep: int) -> None:
        self._starting = starting_credits
        self._credits: dict[str, int] = {}
        self.charges: deque[Charge] = deque(maxlen=keep)

    def credits(self, account: str) -> int:
        """What the account can spend now."""
        return self._credits.get(account, self._starting)

    def grant(self, account: str, amount: int) -> None:
        """Set what the account can spend."""
        self._credits[account] = amount

    def reserve(self, charge: Charge, *, refusal_status: int) -> Charge:
        """Take the credits now; raises `insufficient_credits`."""
        left = self.credits(charge.account) - charge.reserved
        if left < 0:
            raise RivyaError("insufficient_credits", "Not enough credits.", status=refusal_status)
        self._credits[charge.account] = left
        self.charges.append(charge)
        return charge

    def settle(self, charge: Charge, final: int) -> None:
        """Keep the final price and give back the rest; a second time changes nothing."""
        if charge.final is None:
            charge.final = final
            self._credits[charge.account] += charge.reserved - final

    def by_key(self) -> dict[str, dict[str, Any]]:
        """The charges summed per idempotency key, `""` for those without."""
        sums: dict[str, dict[str, Any]] = {}
        for charge in self.charges:
            row = sums.setdefault(charge.idempotency_key or "", {"times": 0, "credits": 0, "generation_ids": []})
            row["times"] += 1
            row["credits"] += charge.reserved if charge.final is None else charge.final
            row["generation_ids"].append(charge.generation_id)
        return sums
