"""What is written down about rotations: wanted, attempted, done; each method is one transaction."""

from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import and_, update

from app.core.database import Database
from app.endpoint import history
from app.endpoint.endpoint import Endpoint
from app.endpoint.registry import add_secret, change
from app.endpoint.tables import endpoint_secrets


class Why(StrEnum):
    """Why a secret is replaced."""

    OPERATOR = "operator"
    SCHEDULE = "schedule"
    LOST = "secret_lost"


class Rotations:
    """A rotation that was attempted stays written down until its secret is stored, whatever happens between."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def request(self, endpoint: Endpoint, *, why: Why, now: datetime) -> None:
        """A new secret is wanted; whoever leads sees to it. Raises `Overtaken`."""
        async with self._database.transaction() as connection:
            await change(connection, endpoint, now=now, rotation_requested_at=now)
            await history.note(connection, endpoint.id, event="rotation_requested", now=now, detail=why)

    async def note_attempt(self, endpoint: Endpoint, *, now: datetime) -> None:
        """A rotation is sent next: Rivya may sign with a secret we don't hold from now on. Raises `Overtaken`."""
        async with self._database.transaction() as connection:
            await change(connection, endpoint, now=now, rotation_attempted_at=now)

    async def take_back(self, endpoint: Endpoint, *, now: datetime, code: str, is_final: bool) -> None:
        """The attempt certainly changed nothing; `is_final`: it isn't wanted any more either. Raises `Overtaken`.

        An earlier attempt whose outcome is unknown stays in doubt.
        """
        requested = None if is_final else endpoint.rotation_requested_at
        before = {"rotation_attempted_at": endpoint.rotation_attempted_at, "rotation_requested_at": requested}
        async with self._database.transaction() as connection:
            await change(connection, endpoint, now=now, **before)
            if is_final:
                await history.note(connection, endpoint.id, event="rotation_refused", now=now, detail=code)

    async def keep(self, endpoint: Endpoint, *, sealed: str, now: datetime, overlap: timedelta) -> None:
        """Store the new secret; the one before is accepted for `overlap`. Raises `Overtaken`, keeping nothing."""
        mine = and_(endpoint_secrets.c.endpoint_id == endpoint.id, endpoint_secrets.c.valid_until.is_(None))
        done = {"rotation_requested_at": None, "rotation_attempted_at": None, "test_asked_at": None, "last_error": None}
        async with self._database.transaction() as connection:
            await change(connection, endpoint, now=now, **done)
            await connection.execute(update(endpoint_secrets).where(mine).values(valid_until=now + overlap))
            await add_secret(connection, endpoint.id, sealed=sealed, now=now)
            await history.note(connection, endpoint.id, event="rotated", now=now)
