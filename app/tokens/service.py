"""Makes, rotates and revokes managed tokens, and keeps `app.core.auth` up to date with those of all replicas."""

import secrets
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import structlog

from app.core.audit import Actor
from app.core.auth import PREFIX, Access, digest_of
from app.core.clock import Clock
from app.tokens.repository import NameTaken, Token, TokenRepository

log = structlog.stdlib.get_logger(__name__)

_SECONDS_BETWEEN_READS: Final = 0.4
"""A change is known everywhere within a second."""
_SECONDS_BETWEEN_NOTES: Final = 60.0
RESERVED_NAMES: Final = frozenset({"me", ".", ".."})
"""`me` is the path of the caller's own token; clients take dots out of a path."""


class NameClash(Exception):
    """A managed token has the name of an entry of RECEIVER_API_TOKENS."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the name {name} is the one of a managed token; rename the entry, or revoke that token "
            f"(`rivya-receiver tokens revoke {name}`)"
        )


class Tokens:
    """The managed tokens. Methods raise `DatabaseUnavailable`."""

    def __init__(self, repository: TokenRepository, access: Access, *, clock: Clock) -> None:
        self._repository = repository
        self._access = access
        self._clock = clock
        self._revision: int | None = None
        self._noted_at = clock.monotonic()

    async def load(self) -> None:
        """Read the tokens. Raises `NameClash`."""
        revision = await self._repository.revision()  # first: what changes meanwhile is read again
        known = await self._repository.all()
        given = {token.name for token in self._access.given}
        clashes = [token.name for token in known if token.name in given and token.revoked_at is None]
        self._access.replace(accepted for token in known if token.name not in given for accepted in token.accepted)
        self._revision = revision
        if clashes:
            raise NameClash(clashes[0])

    async def run_once(self) -> float:
        """Read the tokens if one has changed, note which were used; returns the seconds until the next run."""
        if await self._repository.revision() != self._revision:
            try:
                await self.load()
            except NameClash as error:  # made elsewhere while this process runs: it is not accepted here
                log.error("tokens.name_taken", reason=str(error))  # noqa: TRY400 - the reason says all
        else:
            self._access.confirm()
        if self._clock.monotonic() - self._noted_at >= _SECONDS_BETWEEN_NOTES:
            self._noted_at = self._clock.monotonic()
            if used := self._access.take_used():
                await self._repository.note_use(used, now=self._clock.now())
        return _SECONDS_BETWEEN_READS

    async def list(self) -> Sequence[Token]:
        """All managed tokens, revoked ones included, by name."""
        return await self._repository.all()

    async def create(self, token: Token, actor: Actor) -> tuple[Token, str]:
        """Store a new token; returns it, and the secret that is shown this once. Raises `NameTaken`."""
        if token.name in RESERVED_NAMES or any(token.name == given.name for given in self._access.given):
            raise NameTaken(f"The name {token.name} is taken.")
        secret = _new_secret()
        await self._repository.create(token, digest_of(secret), actor)
        log.info("token.created", token=token.name, role=token.role, by=actor.name)
        await self.run_once()
        return token, secret

    async def change(self, name: str, changed: Callable[[Token], Token], actor: Actor) -> Token:
        """Change limits and expiry of a token. Raises `NotFound`, `TokenRevoked`."""
        token = await self._repository.change(name, changed, actor, now=self._clock.now())
        log.info("token.changed", token=name, by=actor.name)
        await self.run_once()
        return token

    async def rotate(self, name: str, actor: Actor, *, overlap: timedelta) -> tuple[Token, str]:
        """Give a token a new secret; returns both. The old one is accepted for `overlap`.

        Raises `NotFound`, `TokenRevoked`.
        """
        secret = _new_secret()
        now = self._clock.now()
        token = await self._repository.rotate(name, digest_of(secret), actor, now=now, overlap=overlap)
        log.info("token.rotated", token=name, by=actor.name)
        await self.run_once()
        return token, secret

    async def revoke(self, name: str, actor: Actor) -> Token:
        """Revoke a token for good. Raises `NotFound`."""
        token = await self._repository.revoke(name, actor, now=self._clock.now())
        log.info("token.revoked", token=name, by=actor.name)
        await self.run_once()
        return token


def _new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)
