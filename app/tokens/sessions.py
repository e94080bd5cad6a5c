"""The sessions of people who signed in to the console with a token; every replica reads them from the database."""

import hashlib
import secrets
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy import Column, Index, LargeBinary, Table, delete, insert, select, update

from app.core.audit import Actor, write_audit
from app.core.auth import Access, Caller, Unauthorized
from app.core.clock import Clock
from app.core.database import Database, UtcDateTime, metadata

log = structlog.stdlib.get_logger(__name__)

_BETWEEN_NOTES: Final = timedelta(minutes=1)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", LargeBinary, primary_key=True, comment="SHA-256 of the id in the cookie"),
    Column("token_digest", LargeBinary, nullable=False, comment="SHA-256 of the token that signed in"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime, nullable=False, comment="noted once a minute"),
    Index("ix_sessions_token_digest", "token_digest"),
    Index("ix_sessions_used_at", "used_at"),
)

_s = sessions.c


class SessionEnded(Unauthorized):
    """401: there is no such session, it has expired, or its token is not accepted any more."""

    code = "session_ended"


class Sessions:
    """Methods raise `DatabaseUnavailable`.

    `lifetime`: how long a session lasts without being used.
    """

    def __init__(self, database: Database, access: Access, *, clock: Clock, lifetime: timedelta) -> None:
        self._database = database
        self._access = access
        self._clock = clock
        self._lifetime = lifetime

    async def create(self, caller: Caller, actor: Actor) -> str:
        """Begin a session of this caller; returns its id, which is stored as a digest only."""
        session_id, now = new_id(), self._clock.now()
        row = {"digest": _digest(session_id), "token_digest": caller.digest, "created_at": now, "used_at": now}
        async with self._database.transaction() as connection:
            await connection.execute(delete(sessions).where(_s.used_at <= now - self._lifetime))
            await connection.execute(insert(sessions).values(row))
            await write_audit(connection, actor, "session.created", now=now, target=caller.name)
        log.info("session.created", token=caller.name)
        return session_id

    async def caller(self, session_id: str) -> Caller:
        """The caller who began this session, which is in use from now on. Raises `SessionEnded`."""
        now, digest = self._clock.now(), _digest(session_id)
        async with self._database.read_for_caller() as connection:
            statement = select(_s.token_digest, _s.used_at).where(_s.digest == digest)
            row = (await connection.execute(statement)).one_or_none()
        if row is None or row.used_at <= now - self._lifetime:
            raise SessionEnded("You are not signed in, or your session has expired.")
        try:
            caller = self._access.authenticate(row.token_digest)
        except Unauthorized as error:
            raise SessionEnded(error.message) from error
        if row.used_at <= now - min(_BETWEEN_NOTES, self._lifetime / 10):
            async with self._database.transaction() as connection:
                await connection.execute(update(sessions).where(_s.digest == digest).values(used_at=now))
        return caller

    async def delete(self, session_id: str, actor: Actor) -> None:
        """End a session; again changes nothing."""
        async with self._database.transaction() as connection:
            await connection.execute(delete(sessions).where(_s.digest == _digest(session_id)))
            await write_audit(connection, actor, "session.deleted", now=self._clock.now(), target=actor.name)
        log.info("session.deleted", token=actor.name)


def new_id() -> str:
    """256 random bits as text."""
    return secrets.token_urlsafe(32)


def _digest(session_id: str) -> bytes:
    return hashlib.sha256(session_id.encode()).digest()
