"""What a process knows of our endpoints and secrets at one moment: opened, indexed, never changed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.core.encryption import SealingKeys
from app.endpoint.endpoint import Endpoint, pinned_scheme
from app.endpoint.registry import StoredSecret
from app.endpoint.state import State
from app.rivya.schemes import Scheme, parse_scheme
from app.rivya.signature import Verifier


@dataclass(frozen=True, slots=True)
class Known:
    """Immutable, so that a delivery under way is judged by one state of things."""

    scheme: Scheme | None
    """Given by the setting or pinned by proof; None until something is proved."""
    secrets: tuple[str, ...] = field(repr=False, default=())
    verifier: Verifier | None = None
    stored: tuple[StoredSecret, ...] = ()
    """In the order of `secrets`; empty for a secret that was given by hand."""
    endpoint_ids: dict[bytes, str] = field(repr=False, default_factory=dict)
    in_doubt: frozenset[str] = frozenset()
    """Endpoints of which Rivya may hold a secret that is not stored yet."""
    has_unproven: bool = False

    @property
    def usable_secrets(self) -> int:
        """How many secrets deliveries can be verified with; with none, everything is refused."""
        return len(self.secrets) if self.verifier is None else self.verifier.usable_secrets

    def endpoint_id(self, path_key: str | None) -> str | None:
        """Our id of the endpoint with this path key, None where it is not ours."""
        # Looked up by digest: the time it takes tells nothing about how much of a guess was right.
        return None if path_key is None else self.endpoint_ids.get(_digest(path_key))


def by_hand(secret: str, *, scheme: Scheme | None, endpoints: Sequence[Endpoint] = ()) -> Known:
    """The secret is a setting; of what is stored only a scheme that was proved counts."""
    chosen = scheme or _pinned(endpoints)
    verifier = None if chosen is None else Verifier(chosen, [secret])
    return Known(chosen, (secret,), verifier, has_unproven=False)


def read(
    endpoints: Sequence[Endpoint], stored: Sequence[StoredSecret], *, keys: SealingKeys, scheme: Scheme | None
) -> Known:
    """What is stored. Raises `SealBroken` where a secret can't be opened: all or nothing."""
    chosen = scheme or _pinned(endpoints)
    secrets = tuple(keys.open(secret.sealed) for secret in stored)
    with_secret = {secret.endpoint_id for secret in stored}
    return Known(
        scheme=chosen,
        secrets=secrets,
        verifier=None if chosen is None else Verifier(chosen, secrets),
        stored=tuple(stored),
        endpoint_ids={_digest(known.path_key): known.id for known in endpoints if _is_callable(known, with_secret)},
        in_doubt=frozenset(known.id for known in endpoints if known.is_in_doubt),
        has_unproven=any(secret.proven_at is None for secret in stored),
    )


def _pinned(endpoints: Sequence[Endpoint]) -> Scheme | None:
    text = pinned_scheme(endpoints)
    return None if text is None else parse_scheme(text)


def _is_callable(endpoint: Endpoint, with_secret: set[str]) -> bool:
    """Deliveries may still come at its path."""
    if endpoint.state is State.MANUAL:
        return False
    return endpoint.state is not State.RETIRED or endpoint.id in with_secret


def _digest(path_key: str) -> bytes:
    return hashlib.sha256(path_key.casefold().encode(errors="replace")).digest()
