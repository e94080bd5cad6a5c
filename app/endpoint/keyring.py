"""What intake verifies with: every secret that is valid now, kept up to date from the database."""

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import structlog

from app.core.clock import Clock
from app.core.database import Database
from app.core.errors import DatabaseUnavailable
from app.core.sealing import SealBroken, SealingKeys
from app.endpoint.acts import Endpoint
from app.endpoint.registry import Registry, StoredSecret
from app.endpoint.state import State
from app.rivya.signature import Scheme, Verifier

_WITHOUT_SECRET: Final = 0.5
_WITH_SECRET: Final = 10.0
_OFF: Final = 3600.0
_BETWEEN_LOOKS: Final = 1.0
_PATIENCE: Final = 2.0
"""Seconds that a delivery waits for a look at the database."""

log = structlog.stdlib.get_logger(__name__)


class Keyring:
    """The secrets of our endpoints; or `fixed_secret` alone, and then the database is never looked at."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        keys: SealingKeys,
        scheme: Scheme,
        fixed_secret: str | None = None,
    ) -> None:
        self._registry = Registry(database)
        self._clock = clock
        self._keys = keys
        self.is_fixed = fixed_secret is not None
        """The secret was given by hand: no endpoint of ours is registered."""
        self.verifier = Verifier(scheme, [fixed_secret] if fixed_secret is not None else [])
        """Verifies with every secret that is valid now; without any it refuses everything with `no_secret`."""
        self.known_secrets = 1 if self.is_fixed else 0
        """How many secrets are valid now, whether or not they fit the scheme."""
        self.is_read = self.is_fixed
        """What is stored has been read at least once."""
        self._endpoint_ids: dict[bytes, str] = {}
        self._stored: list[StoredSecret] = []
        self._version = 0
        self._looked_at: float | None = None
        self._looking = asyncio.Lock()

    async def load(self) -> None:
        """Read what is stored.

        Raises `SealBroken` where a secret can't be opened with our keys, `DatabaseUnavailable`.
        """
        if not self.is_fixed:
            await self._look()

    async def refresh(self) -> bool:
        """Look for newer secrets; True if there are any since the caller last verified.

        At most once a second, however many ask: those who come while it looks wait for what it finds, the others get
        False at once. Keeps what it has when the database is away or a secret can't be opened.
        """
        if self.is_fixed:
            return False
        seen = self._version
        try:
            async with asyncio.timeout(_PATIENCE), self._looking:
                if self._version == seen and self._may_look():
                    await self._look()
        except SealBroken as error:
            log.error("keyring.seal_broken", detail=str(error))  # noqa: TRY400 - its text says it all
        except (DatabaseUnavailable, TimeoutError):
            log.warning("keyring.database_unavailable")
        return self._version != seen

    def endpoint_id(self, path_key: str | None) -> str | None:
        """Our id of the endpoint with this path key, None where it is not ours."""
        # Looked up by digest: the time it takes tells nothing about how much of a guess was right.
        return None if path_key is None else self._endpoint_ids.get(_digest(path_key))

    async def turn(self) -> float:
        """Refresh; returns the seconds until the next turn. Raises `DatabaseUnavailable`."""
        if self.is_fixed:
            return _OFF
        async with self._looking:
            try:
                await self._look()
            except SealBroken as error:
                log.error("keyring.seal_broken", detail=str(error))  # noqa: TRY400 - its text says it all
        return _WITH_SECRET if self.known_secrets else _WITHOUT_SECRET

    def __repr__(self) -> str:
        """Counts only."""
        return f"Keyring({self.known_secrets} secrets)"

    def _may_look(self) -> bool:
        return self._looked_at is None or self._clock.monotonic() >= self._looked_at + _BETWEEN_LOOKS

    async def _look(self) -> None:
        self._looked_at = self._clock.monotonic()
        now = self._clock.now()
        endpoints = await self._registry.endpoints()
        stored = await self._registry.secrets(now=now)
        if stored != self._stored:
            self._take(stored)
        self.is_read = True
        self._endpoint_ids = {_digest(endpoint.path_key): endpoint.id for endpoint in _callable(endpoints, stored)}

    def _take(self, stored: list[StoredSecret]) -> None:
        """All or nothing: a secret that can't be opened leaves everything as it was."""
        secrets = list(dict.fromkeys(self._keys.open(secret.sealed) for secret in stored))
        self.verifier = Verifier(self.verifier.scheme, secrets)
        self.known_secrets = len(secrets)
        self._stored = stored
        self._version += 1
        log.info("keyring.changed", secrets=len(secrets), newest_from=str(_newest(stored)))


def _callable(endpoints: Sequence[Endpoint], stored: Sequence[StoredSecret]) -> list[Endpoint]:
    """Those at whose path deliveries may still come."""
    with_secret = {secret.endpoint_id for secret in stored}
    return [endpoint for endpoint in endpoints if endpoint.state is not State.RETIRED or endpoint.id in with_secret]


def _newest(stored: Sequence[StoredSecret]) -> datetime | None:
    return max((secret.valid_from for secret in stored), default=None)


def _digest(path_key: str) -> bytes:
    return hashlib.sha256(path_key.encode(errors="replace")).digest()
