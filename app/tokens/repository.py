"""The tables of managed tokens, and their transactions; every change is in the audit and in the revision."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    RowMapping,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.audit import Actor, write_audit
from app.core.auth import ApiToken, Role, TokenLimits
from app.core.database import Database, Id, UtcDateTime, enum_check, metadata
from app.core.errors import NotFound, ServiceError
from app.tokens.sessions import sessions

_Credits = Numeric(asdecimal=False)

tokens = Table(
    "tokens",
    metadata,
    Column("name", Id, primary_key=True, comment="never used again: what the token submitted belongs to this name"),
    Column("role", Text, nullable=False),
    Column("credits_per_day", _Credits),
    Column("credits_per_month", _Credits),
    Column("models", Text, comment="those it may use, as JSON; null: all"),
    Column("rate", Integer, comment="creates and chat turns a minute"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("last_used_at", UtcDateTime, comment="noted once a minute"),
    enum_check("role", Role),
)
# A rotated token has two secrets for a time.
token_secrets = Table(
    "token_secrets",
    metadata,
    Column("digest", LargeBinary, primary_key=True, comment="SHA-256 of the token"),
    Column("name", Id, ForeignKey("tokens.name", ondelete="CASCADE"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("valid_until", UtcDateTime, comment="null: current"),
    Index("ix_token_secrets_name", "name"),
)
# One row. Each change of a token increments it and so locks it: replicas read this once or twice a second.
token_revision = Table(
    "token_revision",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

_t, _s = tokens.c, token_secrets.c


class NameTaken(ServiceError):
    """409: another token has, or had, this name."""

    status = 409
    code = "name_taken"


class TokenRevoked(ServiceError):
    """409: a revoked token can't be changed or rotated any more."""

    status = 409
    code = "token_revoked"


@dataclass(frozen=True, slots=True)
class Secret:
    """A digest of a token, and until when it is accepted (None: as long as the token)."""

    digest: bytes = field(repr=False)
    valid_until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A row of `tokens`."""

    name: str
    role: Role
    limits: TokenLimits
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    secrets: Sequence[Secret] = ()

    @property
    def accepted(self) -> list[ApiToken]:
        """What `app.core.auth` accepts, or knows as revoked: one for each secret."""
        return [
            ApiToken(
                self.name,
                self.role,
                secret.digest,
                self.limits,
                valid_until=min(filter(None, (secret.valid_until, self.expires_at)), default=None),
                is_revoked=self.revoked_at is not None,
            )
            for secret in self.secrets
        ]


class TokenRepository:
    """Every method raises `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def revision(self) -> int:
        """A number that grows with every change of a token."""
        async with self._database.read() as connection:
            revision: int = (await connection.execute(select(token_revision.c.revision))).scalar_one()
        return revision

    async def all(self) -> list[Token]:
        """All tokens with their secrets, revoked ones included, by name."""
        async with self._database.read() as connection:
            stored = (await connection.execute(select(tokens).order_by(_t.name))).mappings().all()
            secrets = (await connection.execute(select(_s.name, _s.digest, _s.valid_until))).all()
        by_name: dict[str, list[Secret]] = {}
        for secret in secrets:
            by_name.setdefault(secret.name, []).append(Secret(secret.digest, secret.valid_until))
        return [_to_token(row, by_name.get(row["name"], ())) for row in stored]

    async def create(self, token: Token, digest: bytes, actor: Actor) -> None:
        """Store a new token. Raises `NameTaken`."""
        row = {
            "name": token.name,
            "role": token.role,
            "created_at": token.created_at,
            "created_by": token.created_by,
            **_changeable(token),
        }
        async with self._database.transaction() as connection:
            await _count_change(connection)
            if (await connection.execute(select(_t.name).where(_t.name == token.name))).first() is not None:
                raise NameTaken(f"Another token has, or had, the name {token.name}; names are not used again.")
            await connection.execute(insert(tokens).values(row))
            await _add_secret(connection, token.name, digest, now=token.created_at)
            await write_audit(
                connection, actor, "token.created", now=token.created_at, target=token.name, detail=describe(token)
            )

    async def change(self, name: str, changed: Callable[[Token], Token], actor: Actor, *, now: datetime) -> Token:
        """Change limits and expiry of a token to those that `changed` returns. Raises `NotFound`, `TokenRevoked`."""
        async with self._database.transaction() as connection:
            await _count_change(connection)
            token = changed(await _usable(connection, name))
            await connection.execute(update(tokens).where(_t.name == name).values(_changeable(token)))
            await write_audit(connection, actor, "token.changed", now=now, target=name, detail=describe(token))
            return token

    async def revoke(self, name: str, actor: Actor, *, now: datetime) -> Token:
        """Revoke a token for good, and end its sessions; again changes nothing. Raises `NotFound`."""
        async with self._database.transaction() as connection:
            await _count_change(connection)
            token = await _read(connection, name)
            if token.revoked_at is not None:
                return token
            await connection.execute(update(tokens).where(_t.name == name).values(revoked_at=now))
            await _end_sessions(connection, name)
            await write_audit(connection, actor, "token.revoked", now=now, target=name)
            return await _read(connection, name)

    async def rotate(self, name: str, digest: bytes, actor: Actor, *, now: datetime, overlap: timedelta) -> Token:
        """Give a token a new secret and end its sessions; the secrets before are accepted for `overlap` at most.

        Raises `NotFound`, `TokenRevoked`.
        """
        until = now + overlap
        async with self._database.transaction() as connection:
            await _count_change(connection)
            await _usable(connection, name)
            is_longer = _s.valid_until.is_(None) | (_s.valid_until > until)
            older = update(token_secrets).where(_s.name == name, is_longer)
            await connection.execute(older.values(valid_until=until))
            await _end_sessions(connection, name)  # programs need the overlap, people can sign in again
            await _add_secret(connection, name, digest, now=now)
            detail = f"the old secret is valid until {until:%Y-%m-%d %H:%M:%SZ}"
            await write_audit(connection, actor, "token.rotated", now=now, target=name, detail=detail)
            return await _read(connection, name)

    async def note_use(self, names: Iterable[str], *, now: datetime) -> None:
        """Note that these tokens were used now. This is no change that replicas have to know."""
        async with self._database.transaction() as connection:
            for name in sorted(names):
                await connection.execute(update(tokens).where(_t.name == name).values(last_used_at=now))


_THE_ROW: Final = token_revision.c.id == 1


async def _count_change(connection: AsyncConnection) -> None:
    """Increment the revision first: its row is the lock of all changes."""
    grown = {"revision": token_revision.c.revision + 1}
    await connection.execute(update(token_revision).where(_THE_ROW).values(grown))


async def _read(connection: AsyncConnection, name: str) -> Token:
    row = (await connection.execute(select(tokens).where(_t.name == name))).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no managed token with the name {name}.")
    return _to_token(row, ())


async def _usable(connection: AsyncConnection, name: str) -> Token:
    token = await _read(connection, name)
    if token.revoked_at is not None:
        raise TokenRevoked(f"The token {name} was revoked; create another one.")
    return token


def _changeable(token: Token) -> dict[str, Any]:
    models = token.limits.models
    listed = None if models is None else orjson.dumps(models).decode()
    return {**asdict(token.limits), "models": listed, "expires_at": token.expires_at}


async def _add_secret(connection: AsyncConnection, name: str, digest: bytes, *, now: datetime) -> None:
    await connection.execute(insert(token_secrets).values(name=name, digest=digest, created_at=now))


async def _end_sessions(connection: AsyncConnection, name: str) -> None:
    digests = select(_s.digest).where(_s.name == name)
    await connection.execute(delete(sessions).where(sessions.c.token_digest.in_(digests)))


def _to_token(row: RowMapping, secrets: Sequence[Secret]) -> Token:
    members: dict[str, Any] = {name: row[name] for name in _COPIED}
    limits = TokenLimits(
        credits_per_day=row["credits_per_day"],
        credits_per_month=row["credits_per_month"],
        models=None if row["models"] is None else tuple(orjson.loads(row["models"])),
        rate=row["rate"],
    )
    return Token(**members, role=Role(row["role"]), limits=limits, secrets=secrets)


_COPIED: Final = ("name", "created_at", "created_by", "expires_at", "revoked_at", "last_used_at")


def describe(token: Token) -> str:
    """Role and limits of a token in words, for people."""
    limits = token.limits
    parts = {
        "credits a day": limits.credits_per_day,
        "credits a month": limits.credits_per_month,
        "calls a minute": limits.rate,
    }
    words = [f"role {token.role}", *(f"{value:g} {name}" for name, value in parts.items() if value is not None)]
    if limits.models is not None:
        words.append(f"models {', '.join(limits.models)}")
    if token.expires_at is not None:
        words.append(f"expires {token.expires_at:%Y-%m-%d %H:%M:%SZ}")
    return "; ".join(words)
