"""The signing secrets that are valid now, kept up to date from the database for verification."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog

from app.core.clock import Clock
from app.core.database import Database
from app.core.encryption import DecryptionFailed, SecretBox
from app.core.errors import DatabaseUnavailable
from app.endpoint.models import PROOF_PATIENCE, Endpoint, State, pinned_scheme
from app.endpoint.repository import EndpointRepository, StoredSecret
from app.rivya.schemes import Scheme, parse_scheme
from app.rivya.signature import Verifier

log = structlog.stdlib.get_logger(__name__)

_WITHOUT_SECRET: Final = 0.5
_WITH_SECRET: Final = 1.0
_OFF: Final = 3600.0
_BETWEEN_READS: Final = 1.0
_BETWEEN_READS_IN_DOUBT: Final = 0.1
_PATIENCE: Final = 3.0
"""Seconds that a delivery waits for a read of the database."""


@dataclass(frozen=True, slots=True)
class KeyringSnapshot:
    """Our endpoints and their decrypted secrets. Immutable, so that one delivery is verified with one state."""

    scheme: Scheme | None
    """From the setting or pinned by a delivery; None until a delivery proves one."""
    secrets: tuple[str, ...] = field(repr=False, default=())
    verifier: Verifier | None = field(compare=False, default=None)
    stored: tuple[StoredSecret, ...] = ()
    """In the order of `secrets`; empty if the secret comes from a setting."""
    endpoint_ids: dict[bytes, str] = field(repr=False, default_factory=dict)
    in_doubt: frozenset[str] = frozenset()
    """Endpoints of which Rivya may hold a secret that is not stored yet."""
    tests: dict[str, datetime] = field(default_factory=dict)
    """By id of an endpoint whose secret is proven: when an admin last requested a test delivery."""

    @property
    def usable_secrets(self) -> int:
        """The number of secrets that deliveries can be verified with; with 0, every delivery is refused."""
        return len(self.secrets) if self.verifier is None else self.verifier.usable_secrets

    def endpoint_id(self, path_key: str | None) -> str | None:
        """Our id of the endpoint with this path key, None if the key is not ours."""
        # The lookup is by digest, so that its duration does not show how much of a guessed key is right.
        return None if path_key is None else self.endpoint_ids.get(_digest(path_key))

    def may_be_test(self, endpoint_id: str | None, now: datetime) -> bool:
        """True if a delivery may be the test that an operator requested.

        That of a registration is not looked for: any other that came before it would be taken for it.
        """
        asked_at = self.tests.get(endpoint_id or "")
        return asked_at is not None and now < asked_at + PROOF_PATIENCE


def from_setting(secret: str, *, scheme: Scheme | None, endpoints: Sequence[Endpoint] = ()) -> KeyringSnapshot:
    """The snapshot with a secret from a setting; from the database only a proven scheme is used."""
    chosen = scheme or _pinned(endpoints)
    return KeyringSnapshot(chosen, (secret,), None if chosen is None else Verifier(chosen, [secret]))


def from_database(
    endpoints: Sequence[Endpoint], stored: Sequence[StoredSecret], *, keys: SecretBox, scheme: Scheme | None
) -> KeyringSnapshot:
    """The snapshot of what is stored. Raises `DecryptionFailed` if any of the secrets can't be decrypted."""
    chosen = scheme or _pinned(endpoints)
    secrets = tuple(keys.decrypt(secret.sealed) for secret in stored)
    with_secret = {secret.endpoint_id for secret in stored}
    # Deliveries may still come to the path of a retired endpoint as long as its secret is valid.
    callable_ = [one for one in endpoints if one.state not in (State.MANUAL, State.RETIRED) or one.id in with_secret]
    return KeyringSnapshot(
        scheme=chosen,
        secrets=secrets,
        verifier=None if chosen is None else Verifier(chosen, secrets),
        stored=tuple(stored),
        endpoint_ids={_digest(endpoint.path_key): endpoint.id for endpoint in callable_},
        in_doubt=frozenset(endpoint.id for endpoint in endpoints if endpoint.is_in_doubt),
        tests={
            one.id: one.test_asked_at
            for one in endpoints
            if one.test_asked_at is not None and one.secret_proven_at is not None
            if one.secret_proven_at < one.test_asked_at
        },
    )


def _pinned(endpoints: Sequence[Endpoint]) -> Scheme | None:
    text = pinned_scheme(endpoints)
    return None if text is None else parse_scheme(text)


def _digest(path_key: str) -> bytes:
    return hashlib.sha256(path_key.casefold().encode(errors="replace")).digest()


class Keyring:
    """The secrets of our endpoints. With `fixed_secret` it is the only secret, and only the proven scheme is read."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        keys: SecretBox,
        scheme: Scheme | None,
        fixed_secret: str | None = None,
    ) -> None:
        self._repository = EndpointRepository(database)
        self._clock = clock
        self._keys = keys
        self.wanted_scheme = scheme
        """The scheme from a setting; None if a delivery has to prove it."""
        self._fixed_secret = fixed_secret
        self.is_fixed = fixed_secret is not None
        """The secret comes from a setting, and we register no endpoint."""
        self.snapshot = KeyringSnapshot(scheme) if fixed_secret is None else from_setting(fixed_secret, scheme=scheme)
        self.is_off = self.is_fixed and scheme is not None
        """Secret and scheme come from settings, and the database is never read."""
        self.is_read = self.is_off
        """The database has been read at least once, or need not be."""
        self.version = 0
        """Grows with each change of `snapshot`."""
        self._read_at: float | None = None
        self._lock = asyncio.Lock()
        self._planned: asyncio.Task[bool] | None = None

    async def load(self) -> None:
        """Read what is stored.

        Raises `DecryptionFailed` if a secret can't be decrypted with our keys, `DatabaseUnavailable`.
        """
        if self.is_off:
            return
        async with self._lock:
            self._read_at = self._clock.monotonic()
            endpoints = await self._repository.endpoints()
            if self._fixed_secret is not None:
                self._set(from_setting(self._fixed_secret, scheme=self.wanted_scheme, endpoints=endpoints))
                return
            stored = await self._repository.secrets(now=self._clock.now())
            self._set(from_database(endpoints, stored, keys=self._keys, scheme=self.wanted_scheme))

    async def refresh(self, version: int, *, is_patient: bool = False) -> bool:
        """Read newer secrets before a delivery is refused; True if there is anything newer than `version`.

        All callers share at most one read a second, ten while a secret is in doubt. A patient caller waits up to 3 s
        for the next read; any other gets False if none is allowed now, if it fails or if it takes 3 s.
        Raises `DatabaseUnavailable` to a patient caller if the read failed or took 3 s.
        """
        if self.version != version:
            return True
        if self.is_off or not (is_patient or self.may_read):
            return False
        if self._planned is None:
            self._planned = asyncio.create_task(self._read_when_allowed())
        try:
            async with asyncio.timeout(_PATIENCE):
                is_done = await asyncio.shield(self._planned)
        except TimeoutError:
            is_done = False
        if not is_done and is_patient:
            raise DatabaseUnavailable
        return self.version != version

    @property
    def may_read(self) -> bool:
        """True if `refresh` would read the database now, also for a caller that is not patient."""
        return not self.is_off and (self._planned is not None or self._seconds_to_wait() <= 0)

    async def run_once(self) -> float:
        """Read what is stored; returns the seconds until the next run. Raises `DatabaseUnavailable`."""
        if self.is_off:
            return _OFF
        await self._load_if_decrypted()
        return _WITH_SECRET if self.snapshot.secrets else _WITHOUT_SECRET

    def __repr__(self) -> str:
        """The number of secrets, never a secret."""
        return f"Keyring({len(self.snapshot.secrets)} secrets)"

    def _seconds_to_wait(self) -> float:
        between = _BETWEEN_READS_IN_DOUBT if self.snapshot.in_doubt else _BETWEEN_READS
        return 0.0 if self._read_at is None else max(self._read_at + between - self._clock.monotonic(), 0.0)

    async def _read_when_allowed(self) -> bool:
        """False if the database is unavailable. Callers can join until the read begins."""
        try:
            await asyncio.sleep(self._seconds_to_wait())
            self._planned = None
            await self._load_if_decrypted()
        except DatabaseUnavailable:
            log.warning("keyring.database_unavailable")
            return False
        return True

    async def _load_if_decrypted(self) -> None:
        try:
            await self.load()
        except DecryptionFailed as error:
            log.error("keyring.seal_broken", detail=str(error))  # noqa: TRY400 - its text says it all

    def _set(self, snapshot: KeyringSnapshot) -> None:
        self.is_read = True
        if snapshot == self.snapshot:
            return
        if snapshot.secrets != self.snapshot.secrets or snapshot.scheme != self.snapshot.scheme:
            newest = max((secret.valid_from.isoformat() for secret in snapshot.stored), default=None)
            log.info("keyring.changed", secrets=len(snapshot.secrets), scheme=str(snapshot.scheme), newest_from=newest)
        self.snapshot = snapshot
        self.version += 1
