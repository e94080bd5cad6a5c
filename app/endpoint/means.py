"""What the steps of registration work with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from app.core.clock import Clock
from app.core.encryption import SealingKeys
from app.endpoint.callback_url import callback_url
from app.endpoint.failures import Undecided
from app.endpoint.registry import Registry
from app.endpoint.rotations import Rotations
from app.rivya.client import RivyaClient


@dataclass(frozen=True, slots=True)
class Means:
    """`hold` renews the lease and raises `LeaseLost`."""

    client: RivyaClient
    registry: Registry
    rotations: Rotations
    clock: Clock
    keys: SealingKeys
    public_url: str
    secret_overlap: timedelta
    hold: Callable[[], Awaitable[None]]

    def url(self, path_key: str) -> str:
        """The callback URL that is wanted."""
        return callback_url(self.public_url, path_key)

    def require_key(self) -> None:
        """Raise `Undecided` without an encryption key: a secret that can't be stored must not be asked for."""
        if self.keys.newest is None:
            raise Undecided("encryption_key_missing")
