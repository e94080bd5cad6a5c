"""API keys `rvya_sk_…`: whose they are, what they may do, and whether they still count."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from app.sandbox.clock import Clock
from app.sandbox.errors import RivyaError

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
    expires_at: datetime | None = None


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
