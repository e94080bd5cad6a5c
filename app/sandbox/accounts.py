"""API keys `rvya_sk_…`: whose they are, what they may do, and whether they still count."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
from pydantic import AwareDatetime

from app.sandbox.clock import Bounded, Clock
from app.sandbox.responses import RivyaError

DEFAULT_KEY = "rvya_sk_sandbox"
SCOPES = (
    "models:read",
    "generations:create",
    "generations:read",
    "files:create",
    "files:read",
    "credits:read",
    "webhooks:manage",
    "chat:create",
    "chat:read",
)


@dataclass
class Key:
    """One API key; keys of the same account see the same generations, endpoints and credits."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    value: str
    account: str = "default"
    scopes: tuple[str, ...] = SCOPES
    revoked: bool = False
    expires_at: AwareDatetime | None = None


class KeyRing:
    """All keys the sandbox knows."""

    def __init__(self, values: Iterable[str], clock: Clock) -> None:
        self._clock = clock
        self._keys = {value: Key(value) for value in values}

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    def __getitem__(self, value: str) -> Key:
        return self._keys[value]

    def add(self, key: Key) -> Key:
        """Make a key known, or replace the one of the same value."""
        self._keys[key.value] = key
        return key

    def authenticate(self, authorization: str | None, scope: str) -> Key:
        """The key behind an `Authorization` header; raises the documented refusals."""
        scheme, _, value = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not value.strip():
            raise RivyaError("api_key_missing", "Send your API key as 'Authorization: Bearer rvya_sk_…'.")
        key = self._keys.get(value.strip())
        if key is None:
            raise RivyaError("api_key_invalid", "This API key is not known.")
        if key.revoked:
            raise RivyaError("api_key_revoked", "This API key was revoked.")
        if key.expires_at is not None and key.expires_at <= self._clock.now():
            raise RivyaError("api_key_expired", "This API key has expired.")
        if scope not in key.scopes:
            raise RivyaError("api_scope_denied", f"This API key lacks the scope {scope}.")
        return key


# Credits: reserved when a generation is created, settled when it ends, given back when it fails.


@dataclass
class Charge:
    """What one generation costs its account; `final` is None until it ends."""

    account: str
    idempotency_key: str | None
    generation_id: str
    reserved: int
    final: int | None = None


class CreditAccounts:
    """The credits of every account, and what took them."""

    def __init__(self, *, starting_credits: int, keep: int) -> None:
        self._starting = starting_credits
        self._credits: dict[str, int] = {}
        self.charges: deque[Charge] = deque(maxlen=keep)

    def balance(self, account: str) -> int:
        """What the account can spend now."""
        return self._credits.get(account, self._starting)

    def set_balance(self, account: str, amount: int) -> None:
        """Set what the account can spend."""
        self._credits[account] = amount

    def reserve(self, charge: Charge, *, refusal_status: int) -> Charge:
        """Take the credits now; raises `insufficient_credits`."""
        left = self.balance(charge.account) - charge.reserved
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

    def charges_by_key(self) -> dict[str, dict[str, Any]]:
        """The charges summed per idempotency key, `""` for those without."""
        sums: dict[str, dict[str, Any]] = {}
        for charge in self.charges:
            row = sums.setdefault(charge.idempotency_key or "", {"times": 0, "credits": 0, "generation_ids": []})
            row["times"] += 1
            row["credits"] += charge.reserved if charge.final is None else charge.final
            row["generation_ids"].append(charge.generation_id)
        return sums


# The same `Idempotency-Key` with the same body gets the first answer again; with another body, a refusal.


Answer = dict[str, Any]


class Idempotency:
    """The answers already given, per account and key; a refused request leaves its key unused."""

    def __init__(self, keep: int) -> None:
        self._answers: Bounded[tuple[str, str], tuple[str, Answer]] = Bounded(keep)

    def find(self, account: str, key: str, body: Answer) -> Answer | None:
        """The first answer, or None for a new key; raises `idempotency_conflict`."""
        known = self._answers.get((account, key))
        if known is None:
            return None
        if known[0] != _fingerprint(body):
            raise RivyaError("idempotency_conflict", "This Idempotency-Key was used with another body.")
        return known[1]

    def remember(self, account: str, key: str, body: Answer, *, answer: Answer) -> None:
        """Keep the answer for the next time."""
        self._answers[account, key] = (_fingerprint(body), answer)


def _fingerprint(body: Answer) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
