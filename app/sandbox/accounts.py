"""API keys, credits, idempotency keys, and whose each object is."""

import hashlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import orjson
from pydantic import AwareDatetime

from app.sandbox.clock import BoundedDict, Clock
from app.sandbox.responses import RivyaError, missing
from app.sandbox.settings import Context

DEFAULT_KEY = "rvya_sk_sandbox"
STARTING_CREDITS = 100_000
"""The credits of an account that were never set."""
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
    """An API key; keys of the same account share generations, endpoints and credits."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    value: str
    account: str = "default"
    scopes: tuple[str, ...] = SCOPES
    revoked: bool = False
    expires_at: AwareDatetime | None = None


class KeyRing(dict[str, Key]):
    """All keys that the sandbox knows, by value."""

    def __init__(self, values: Iterable[str], clock: Clock) -> None:
        super().__init__((value, Key(value)) for value in values)
        self._clock = clock

    def add(self, key: Key) -> None:
        """Add a key, or replace the one of the same value."""
        self[key.value] = key

    def authenticate(self, authorization: str | None, scope: str) -> Key:
        """The key in an `Authorization` header. Raises `api_key_…` and `api_scope_denied`."""
        scheme, _, value = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not value.strip():
            raise RivyaError("api_key_missing", "Send your API key as 'Authorization: Bearer rvya_sk_…'.")
        key = self.get(value.strip())
        if key is None:
            raise RivyaError("api_key_invalid", "This API key is not known.")
        if key.revoked:
            raise RivyaError("api_key_revoked", "This API key was revoked.")
        if key.expires_at is not None and key.expires_at <= self._clock.now():
            raise RivyaError("api_key_expired", "This API key has expired.")
        if scope not in key.scopes:
            raise RivyaError("api_scope_denied", f"This API key lacks the scope {scope}.")
        return key


class Owned(Protocol):
    """An object of one account."""

    @property
    def account(self) -> str:
        """The account's name."""


R = TypeVar("R", bound=Owned)


class Records(BoundedDict[str, R]):
    """Objects of all accounts by id, oldest first; `what` names one in an error."""

    def __init__(self, what: str, keep: int) -> None:
        super().__init__(keep)
        self._what = what

    def of(self, account: str) -> list[R]:
        """The account's objects, oldest first."""
        return [record for record in self.values() if record.account == account]

    def find(self, record_id: str, account: str | None = None) -> R:
        """The object, of this account where one is given. Raises `not_found`."""
        record = self.get(record_id)
        if record is None or account not in (None, record.account):
            raise missing(self._what)
        return record


@dataclass
class Charge:
    """The price of one generation or chat turn; `final` is None until it ends."""

    account: str
    idempotency_key: str | None
    generation_id: str
    reserved: int
    final: int | None = None


class CreditAccounts:
    """The credits of every account, and the charges."""

    def __init__(self, context: Context) -> None:
        self._settings = context.settings
        self._credits: dict[str, int] = {}
        self.charges: deque[Charge] = deque(maxlen=context.keep)

    def balance(self, account: str) -> int:
        """The credits that the account can spend."""
        return self._credits.get(account, STARTING_CREDITS)

    def set_balance(self, account: str, amount: int) -> None:
        """Set the credits that the account can spend."""
        self._credits[account] = amount

    def reserve(self, charge: Charge) -> None:
        """Take the reserved credits from the account. Raises `insufficient_credits`."""
        left = self.balance(charge.account) - charge.reserved
        if left < 0:
            status = self._settings.insufficient_credits_status
            raise RivyaError("insufficient_credits", "Not enough credits.", status=status)
        self._credits[charge.account] = left
        self.charges.append(charge)

    def settle(self, charge: Charge, final: int) -> None:
        """Set the final price and give back the rest; a second call changes nothing."""
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


class Idempotency:
    """The first answer to each key of an account; a refused request leaves its key unused."""

    def __init__(self, keep: int) -> None:
        self._answers: BoundedDict[tuple[str, str], tuple[str, dict[str, Any]]] = BoundedDict(keep)

    def find(self, account: str, key: str | None, body: dict[str, Any]) -> dict[str, Any] | None:
        """The first answer, or None for a new key. Raises `idempotency_conflict` for another body."""
        digest, answer = self._answers.get((account, key or ""), (None, None))
        if digest is not None and digest != _digest(body):
            raise RivyaError("idempotency_conflict", "This Idempotency-Key was used with another body.")
        return answer

    def store(self, account: str, key: str | None, body: dict[str, Any], *, answer: dict[str, Any]) -> None:
        """Store the first answer."""
        if key:
            self._answers[account, key] = (_digest(body), answer)


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
